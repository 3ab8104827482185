/* options.c - every option that tensoronecli knows, one row each. 
 * Names and defaults of the create options are those of the public command line contract. */
#include "cli/cli.h"

#include "model/limits.h"

#define ANY UINT32_MAX

const enum opt_id global_options[] = { OPT_OUTPUT, OPT_CA, OPT_HELP, OPT_NONE };

bool option_is_global(enum opt_id id)
{
        for (const enum opt_id *o = global_options; *o != OPT_NONE; o++)
                if (*o == id)
                        return true;
        return false;
}

const struct option options[OPT_COUNT] = {
        [OPT_HELP] = { "help", 'h', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                       "print what the command does" },
        [OPT_OUTPUT] = { "output", 'o', OPT_KIND_STR, "FORMAT", "table", 0, 0, "table json",
                         "how results are printed" },
        [OPT_CA] = { "ca", 0, OPT_KIND_STR, "FILE", NULL, 0, 0, NULL,
                     "PEM file with the authorities that alone may vouch for an API at https://" },
        [OPT_API_KEY] = { "apiKey", 0, OPT_KIND_STR, "KEY", NULL, 0, 0, NULL,
                          "API key; - reads it from standard input, which keeps it out of the "
                          "process list and the shell's history" },
        [OPT_API_URL] = { "apiUrl", 0, OPT_KIND_STR, "URL", NULL, 0, 0, NULL,
                          "address of the API, with or without /graphql" },
        [OPT_CA_FINGERPRINT] = { "fingerprint", 0, OPT_KIND_STR, "SHA256", NULL, 0, 0, NULL,
                                 "trust the private authority that the API shows, if its "
                                 "certificate has this SHA-256" },
        [OPT_GPU_TYPE] = { "gpuType", 0, OPT_KIND_STR, "TYPE[,TYPE...]", NULL, 0, 0, NULL,
                           "GPU type; of several, the first one with a free instance is taken" },
        [OPT_IMAGE_NAME] = { "imageName", 0, OPT_KIND_STR, "IMAGE", NULL, 0, 0, NULL,
                             "container image" },
        [OPT_NAME] = { "name", 0, OPT_KIND_STR, "NAME", NULL, 0, 0, NULL,
                       "name of the cluster (default: the image's name)" },
        [OPT_CONTAINER_DISK] = { "containerDiskSize", 0, OPT_KIND_INT, "GB", "20", 1,
                                 LIMIT_DISK_GIB, NULL, "container disk, wiped at stop" },
        [OPT_VOLUME_SIZE] = { "volumeSize", 0, OPT_KIND_INT, "GB", "1", 0, LIMIT_DISK_GIB, NULL,
                              "volume, kept until the cluster is removed; 0 for none" },
        [OPT_VOLUME_PATH] = { "volumePath", 0, OPT_KIND_STR, "PATH", "/runpod", 0, 0, NULL,
                              "where the volume is mounted" },
        [OPT_MEM] = { "mem", 0, OPT_KIND_INT, "GB", "20", 1, LIMIT_MEMORY_MIB / 1024, NULL,
                      "memory" },
        [OPT_VCPU] = { "vcpu", 0, OPT_KIND_INT, "N", "1", 1, LIMIT_VCPU, NULL, "virtual CPUs" },
        [OPT_GPU_COUNT] = { "gpuCount", 0, OPT_KIND_INT, "N", "1", 0, LIMIT_GPUS, NULL,
                            "GPUs; 0 for a cluster without any" },
        [OPT_ARGS] = { "args", 0, OPT_KIND_STR, "COMMAND", NULL, 0, 0, NULL,
                       "command line instead of the image's own, split as a shell does" },
        [OPT_ENV] = { "env", 0, OPT_KIND_LIST, "KEY=VALUE", NULL, 0, 0, NULL,
                      "environment variable; repeat it, or separate several by commas" },
        [OPT_PORTS] = { "ports", 0, OPT_KIND_LIST, "PORT/TYPE", NULL, 0, 0, NULL,
                        "port to publish, such as 8888/http, 8888/http:private (see open) or "
                        "22/tcp; repeat it, or separate several by commas" },
        [OPT_COST] = { "cost", 0, OPT_KIND_FLOAT, "DOLLARS", NULL, 0, 0, NULL,
                       "highest price per hour that is accepted" },
        [OPT_SECURE_CLOUD] = { "secureCloud", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                               "only hosts of the secure cloud" },
        [OPT_COMMUNITY_CLOUD] = { "communityCloud", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                                  "hosts of the community cloud (this is the default)" },
        [OPT_TEMPLATE_ID] = { "templateId", 0, OPT_KIND_STR, "ID", NULL, 0, 0, NULL,
                              "template that gives every value not given here" },
        [OPT_NETWORK_VOLUME] = { "networkVolumeId", 0, OPT_KIND_STR, "ID", NULL, 0, 0, NULL,
                                 "network volume to use instead of a volume" },
        [OPT_DATA_CENTER] = { "dataCenterId", 0, OPT_KIND_STR, "ID", NULL, 0, 0, NULL,
                              "data centre to run in" },
        [OPT_START_SSH] = { "startSSH", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                            "give it an SSH server, whatever the image; see ssh" },
        [OPT_COMPUTE_TYPE] = { "computeType", 0, OPT_KIND_STR, "TYPE", NULL, 0, 0, "GPU CPU",
                               "kind of instance (default: GPU)" },
        [OPT_STOP_AFTER] = { "stopAfter", 0, OPT_KIND_STR, "TIME", NULL, 0, 0, NULL,
                             "stop the cluster then: a time as in 2026-01-31T08:00:00Z, or a span "
                             "as in 90m" },
        [OPT_TERMINATE_AFTER] = { "terminateAfter", 0, OPT_KIND_STR, "TIME", NULL, 0, 0, NULL,
                                  "remove the cluster then; same forms" },
        [OPT_CLUSTER_COUNT] = { "clusterCount", 0, OPT_KIND_INT, "N", "1", 1, 1000, NULL,
                                "how many clusters" },
        [OPT_WAIT] = { "wait", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                       "return only when it has happened, and show progress" },
        [OPT_NEW_GPU_COUNT] = { "gpuCount", 0, OPT_KIND_INT, "N", NULL, 0, LIMIT_GPUS, NULL,
                                "GPUs; 0 takes all away" },
        [OPT_NEW_VCPU] = { "vcpu", 0, OPT_KIND_INT, "N", NULL, 1, LIMIT_VCPU, NULL,
                           "virtual CPUs" },
        [OPT_NEW_MEM] = { "mem", 0, OPT_KIND_INT, "GB", NULL, 1, LIMIT_MEMORY_MIB / 1024, NULL,
                          "memory" },
        [OPT_NEW_CONTAINER_DISK] = { "containerDiskSize", 0, OPT_KIND_INT, "GB", NULL, 1,
                                     LIMIT_DISK_GIB, NULL, "container disk" },
        [OPT_NEW_VOLUME_SIZE] = { "volumeSize", 0, OPT_KIND_INT, "GB", NULL, 1, LIMIT_DISK_GIB,
                                  NULL, "volume" },
        [OPT_SEEN_VERSION] = { "ifVersion", 0, OPT_KIND_INT, "N", NULL, 1, ANY, NULL,
                               "only if this is still the cluster's version (-o json shows it); "
                               "otherwise nothing is changed" },
        [OPT_ALL_FIELDS] = { "allfields", 'a', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                             "print every column" },
        [OPT_BID] = { "bid", 0, OPT_KIND_FLOAT, "DOLLARS", NULL, 0, 0, NULL,
                      "bid per GPU and hour, for an interruptible start" },
        [OPT_RESUME_GPU_COUNT] = { "gpuCount", 0, OPT_KIND_INT, "N", NULL, 0, LIMIT_GPUS, NULL,
                                   "GPUs (default: as many as before)" },
        [OPT_FOLLOW] = { "follow", 'f', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                         "keep printing new lines as they are written" },
        [OPT_TAIL] = { "tail", 0, OPT_KIND_INT, "N", NULL, 0, ANY, NULL, "only the last N lines" },
        [OPT_SINCE] = { "since", 0, OPT_KIND_STR, "TIME", NULL, 0, 0, NULL,
                        "only lines since then: a time as in 2026-01-31T08:00:00Z, or a span as "
                        "in 10m" },
        [OPT_TIMESTAMPS] = { "timestamps", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                             "put the time in front of each line" },
        [OPT_STREAM] = { "stream", 0, OPT_KIND_STR, "NAME", NULL, 0, 0, "stdout stderr",
                         "only this stream" },
        [OPT_STDIN] = { "interactive", 'i', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                        "pass standard input on" },
        [OPT_TTY] = { "tty", 't', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                      "give the command a terminal" },
        [OPT_EXEC_ENV] = { "env", 'e', OPT_KIND_LIST, "KEY=VALUE", NULL, 0, 0, NULL,
                           "environment variable; may be repeated" },
        [OPT_USER] = { "user", 'u', OPT_KIND_STR, "USER[:GROUP]", NULL, 0, 0, NULL,
                       "run as this user of the image (default: the image's)" },
        [OPT_CWD] = { "cwd", 'w', OPT_KIND_STR, "DIR", NULL, 0, 0, NULL,
                      "working directory (default: the image's)" },
        [OPT_URL_PATH] = { "path", 0, OPT_KIND_STR, "PATH", NULL, 0, 0, NULL,
                           "what the URL leads to, such as /lab?reset; it begins with / and is "
                           "escaped as in a URL (default: /)" },
        [OPT_PUBLIC] = { "public", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                         "visible to every account; administrators only" },
        [OPT_FORCE] = { "force", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                        "ask the registry even when the image is present" },
        [OPT_REGISTRY_AUTH] = { "registryAuthId", 0, OPT_KIND_STR, "ID", NULL, 0, 0, NULL,
                                "registry credentials that open the image; see registry-auth" },
        [OPT_SECURITY_PROFILE] = { "securityProfile", 0, OPT_KIND_STR, "PROFILE", NULL, 0, 0,
                                   "standard strict compat",
                                   "how strictly it is held: as a virtual server feels; no debuggers, "
                                   "no low ports, a read-only root; or with sudo (default: standard)" },
        [OPT_READINESS_PATH] = { "readinessPath", 0, OPT_KIND_STR, "PATH", NULL, 0, 0, NULL,
                                 "ready when GET of that, such as /health, or :8000/health of another "
                                 "HTTP port than the first, has a status of 200 to 399; none: when "
                                 "its ports take connections (default: the template's, or none)" },
        [OPT_EGRESS] = { "egressAllow", 0, OPT_KIND_LIST, "NETWORK", NULL, 0, 0, NULL,
                         "network that it may reach, such as 198.51.100.0/24 or 2001:db8::/32, and "
                         "then nothing else but name servers, the API and the account's own "
                         "clusters; repeat it, or separate several by commas; none: no network" },
        [OPT_ALLOWED_IPS] = { "allowedIps", 0, OPT_KIND_LIST, "NETWORK", NULL, 0, 0, NULL,
                              "address or network that its web ports may be asked from, such as "
                              "203.0.113.7 or 2001:db8::/32, and then from nowhere else; repeat "
                              "it, or separate several by commas; all: from anywhere" },
        [OPT_IDLE_TIMEOUT] = { "idleTimeout", 0, OPT_KIND_STR, "TIME", NULL, 0, 0, NULL,
                               "stop it after so long without use, such as 30m, 10s to 30d: no "
                               "traffic through the edge, no session, no work for a CPU or GPU; "
                               "0: never (default: the template's, or never)" },
        [OPT_IDLE_ACTION] = { "idleAction", 0, OPT_KIND_STR, "ACTION", NULL, 0, 0, "stop terminate",
                              "what is done then; terminate removes its volume, too (default: "
                              "the template's, or stop)" },
        [OPT_REGISTRY_USER] = { "username", 'u', OPT_KIND_STR, "NAME", NULL, 0, 0, NULL,
                                "the user's name at the registry" },
        [OPT_SECRET_FILE] = { "file", 'f', OPT_KIND_STR, "FILE", NULL, 0, 0, NULL,
                              "take the value from this file" },
        [OPT_SECRET_TEXT] = { "description", 0, OPT_KIND_STR, "TEXT", NULL, 0, 0, NULL,
                              "what it is for; anybody with a key of the account sees that" },
        [OPT_CLOUD_COMMUNITY] = { "community", 'c', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                                  "only the community cloud" },
        [OPT_CLOUD_SECURE] = { "secure", 's', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                               "only the secure cloud" },
        [OPT_CLOUD_DISK] = { "disk", 0, OPT_KIND_INT, "GB", "0", 0, LIMIT_DISK_GIB, NULL,
                             "smallest disk" },
        [OPT_CLOUD_MEM] = { "mem", 0, OPT_KIND_INT, "GB", "0", 0, LIMIT_MEMORY_MIB / 1024, NULL,
                            "smallest memory" },
        [OPT_CLOUD_VCPU] = { "vcpu", 0, OPT_KIND_INT, "N", "0", 0, LIMIT_VCPU, NULL,
                             "fewest virtual CPUs" },
        [OPT_TOPO] = { "topo", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                       "print how they are joined, as a matrix" },
        [OPT_P2P] = { "p2p", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                      "print which reach into each other's memory, as a matrix" },
        [OPT_VFIO] = { "vfio", 0, OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                       "what would have to be done to hand them to virtual machines" },
        [OPT_TIMES] = { "times", 'n', OPT_KIND_INT, "N", NULL, 1, ANY, NULL,
                        "end after so many pictures" },
        [OPT_INTERVAL] = { "interval", 0, OPT_KIND_STR, "TIME", "1s", 0, 0, NULL,
                           "time between two pictures, 100ms to 1h" },
        [OPT_EVENT_KIND] = { "kind", 0, OPT_KIND_STR, "KIND", NULL, 0, 0, NULL,
                             "only these, such as exited, gpu.xid; gpu, audit, security: all of "
                             "a sort" },
        [OPT_EVENT_SINCE] = { "since", 0, OPT_KIND_STR, "TIME", NULL, 0, 0, NULL,
                              "only what happened since then: a time as in "
                              "2026-01-31T08:00:00Z, or a span as in 10m" },
        [OPT_LIMIT] = { "limit", 0, OPT_KIND_INT, "N", "100", 1, 1000, NULL,
                        "at most so many, the newest" },
        [OPT_SSH_KEY] = { "key", 0, OPT_KIND_STR, "TEXT", NULL, 0, 0, NULL,
                          "the public key itself, one line" },
        [OPT_SSH_KEY_FILE] = { "key-file", 0, OPT_KIND_STR, "FILE", NULL, 0, 0, NULL,
                               "take the public key from this file, such as ~/.ssh/id_ed25519.pub" },
        [OPT_SSH_KEY_NAME] = { "name", 0, OPT_KIND_STR, "NAME", NULL, 0, 0, NULL,
                               "the key of this name, which is the text behind it" },
        [OPT_SSH_FINGERPRINT] = { "fingerprint", 0, OPT_KIND_STR, "SHA256:...", NULL, 0, 0, NULL,
                                  "the key with this fingerprint" },
        [OPT_SSH_LOCAL] = { "local", 'L', OPT_KIND_LIST, "PORT:HOST:PORT", NULL, 0, 0, NULL,
                            "a port of this computer leads to one that the cluster reaches; may be "
                            "repeated" },
        [OPT_SSH_REMOTE] = { "remote", 'R', OPT_KIND_LIST, "PORT:HOST:PORT", NULL, 0, 0, NULL,
                             "a port of the cluster leads to one that this computer reaches; may be "
                             "repeated" },
        [OPT_SSH_DYNAMIC] = { "dynamic", 'D', OPT_KIND_LIST, "PORT", NULL, 0, 0, NULL,
                              "a port of this computer is a SOCKS proxy into the cluster's network" },
        [OPT_SSH_NOTHING] = { "no-command", 'N', OPT_KIND_BOOL, NULL, NULL, 0, 0, NULL,
                              "start no shell: ports alone" },
};
