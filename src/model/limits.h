/* limits.h - every bound that a client can run into, in one place, with its unit.
 * The API checks requests against them, the engine checks plans again, and messages quote them. */
#pragma once

#define LIMIT_CLUSTER_ID_LEN        14U     /* characters of a cluster id: [a-z][a-z0-9]* */
#define LIMIT_NAME_LEN              191U    /* bytes of a cluster or template name */
#define LIMIT_IMAGE_REF_LEN         512U    /* bytes of an image reference */
#define LIMIT_ENV_ENTRIES           50U     /* variables that a user may set */
#define LIMIT_ENV_TOTAL_ENTRIES     256U    /* image + user + ours */
#define LIMIT_ENV_BYTES             131072U /* one KEY=VALUE; the kernel's MAX_ARG_STRLEN */
#define LIMIT_ARGS_BYTES            131071U /* dockerArgs; one argument of execve */
#define LIMIT_ARGV_ENTRIES          1024U
#define LIMIT_VCPU                  1024U
#define LIMIT_MEMORY_MIB            (64U * 1024U * 1024U) /* 64 TiB */
#define LIMIT_MEMORY_MIN_MIB        64U
#define LIMIT_DISK_GIB              65536U /* container disk or volume */
#define LIMIT_DISK_FLOOR_MIB        128U /* free in the data directory, below that nothing new begins */
#define LIMIT_DISK_FLOOR_TEXT       "128 MiB"
#define LIMIT_MOUNT_PATH_BYTES      1024U /* volumeMountPath */
#define LIMIT_READY_PATH_BYTES      1024U /* readinessPath */
#define LIMIT_PORTS                 64U
#define LIMIT_HTTP_PORTS            10U
#define LIMIT_GPUS                  64U
#define LIMIT_LAYERS                127U /* layers of one image */
#define LIMIT_GRACE_S               10U  /* TERM to KILL */
#define LIMIT_PIDS_DEFAULT          32768U
#define LIMIT_SLOTS                 4094U /* clusters on one host: id ranges, addresses, links */
#define LIMIT_QUERY_BYTES           (4U << 20) /* a GraphQL request body */
#define LIMIT_QUERY_DEPTH           64U        /* nesting of a GraphQL query */
#define LIMIT_QUERY_TOKENS          1048576U /* words of a GraphQL query: any text of 1 MiB passes */
#define LIMIT_QUERY_FIELDS          65536U   /* different fields that one query may select */
#define LIMIT_QUERY_VARIABLES       256U     /* variables that one query may declare */
#define LIMIT_QUERY_ERRORS          100U     /* errors reported in one answer */
#define LIMIT_QUERY_MS              500U /* of a processor's time that answering one query may take */
#define LIMIT_ANSWER_BYTES          (32U << 20) /* a GraphQL answer */
#define LIMIT_LOG_BYTES             (64U << 20) /* a cluster's log on disk, two halves */
#define LIMIT_PULLS_WAITING         256U /* image operations of one account that wait for a place */
#define LIMIT_MANIFEST_BYTES        (4U << 20) /* image manifest or index */
#define LIMIT_CONFIG_BYTES          (8U << 20) /* image configuration */
#define LIMIT_LAYER_ENTRIES         10000000U  /* files, directories, links of one layer */
#define LIMIT_LAYER_DEPTH           256U       /* components of a path in a layer */
#define LIMIT_REGISTRY_AUTHS        100U       /* registry credentials of one account */
#define LIMIT_REGISTRY_USER_LEN     255U       /* bytes of a user's name at a registry */
#define LIMIT_REGISTRY_PASSWORD_LEN 4096U      /* bytes; some are tokens */
#define LIMIT_SECRETS               100U /* secrets of one account, and of one cluster's variables */
#define LIMIT_SECRET_NAME_LEN       64U
#define LIMIT_SECRET_BYTES          32768U /* of one value */
#define LIMIT_SECRET_TEXT_LEN       255U   /* bytes of a secret's description */
#define LIMIT_CUDA_VERSIONS         64U    /* that a request allows */
#define LIMIT_EGRESS                64U    /* networks that one cluster's traffic is limited to */
#define LIMIT_ALLOWED_IPS           64U    /* networks that may ask a cluster's web ports */
#define LIMIT_SUBSCRIPTIONS         100U   /* that an account has open */
#define LIMIT_SUBSCRIPTION_FIELDS   512U   /* different ones that one may select: each event costs them */
#define LIMIT_SUBSCRIPTION_BYTES    262144U /* one answer of a subscription */
#define LIMIT_SUBSCRIPTION_SOCKETS  32U    /* WebSockets of an account that carry them */
#define LIMIT_SUBSCRIPTIONS_ALL     1000U  /* each, of all accounts */
#define LIMIT_REDIRECTS             5U     /* of one request to a registry */
#define LIMIT_SSH_KEYS              100U   /* of one account */
#define LIMIT_SSH_KEYS_BYTES        65536U /* all of them, comments included */
