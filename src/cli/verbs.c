/* verbs.c - every verb of tensoronecli, one row each.  Data, and the look-ups over it. */
#include "cli/cli.h"

#include <stdio.h>

#include "base/str.h"

#define OPTS(...) ((const enum opt_id[]){ __VA_ARGS__, OPT_NONE })
#define NO_OPTS   ((const enum opt_id[]){ OPT_NONE })
#define MANY      SIZE_MAX

#define CREATE_OPTS                                                                                \
        OPT_GPU_TYPE, OPT_IMAGE_NAME, OPT_NAME, OPT_CONTAINER_DISK, OPT_VOLUME_SIZE,               \
                OPT_VOLUME_PATH, OPT_MEM, OPT_VCPU, OPT_GPU_COUNT, OPT_ARGS, OPT_ENV, OPT_PORTS,   \
                OPT_COST, OPT_SECURE_CLOUD, OPT_COMMUNITY_CLOUD, OPT_TEMPLATE_ID,                  \
                OPT_NETWORK_VOLUME, OPT_DATA_CENTER, OPT_START_SSH, OPT_COMPUTE_TYPE,              \
                OPT_STOP_AFTER, OPT_TERMINATE_AFTER, OPT_REGISTRY_AUTH, OPT_SECURITY_PROFILE,      \
                OPT_READINESS_PATH, OPT_EGRESS, OPT_ALLOWED_IPS, OPT_IDLE_TIMEOUT,                 \
                OPT_IDLE_ACTION, OPT_WAIT

#define CREATE_DETAIL                                                                                \
        "With --templateId, what is not given on the command line comes from the template. Without " \
        "--wait the command returns as soon as the resources are reserved; the image is then still " \
        "being fetched. With --wait it returns when every port that was declared answers, and says " \
        "where each is reached from outside."

#define CREATE_EXAMPLE(form)                                                                       \
        "tensoronecli create " form " --gpuType \"NVIDIA A100\" --imageName "                      \
        "\"tensorone/llm-starter\" --containerDiskSize 20 --volumeSize 40 --mem 32 --args "        \
        "\"python run.py\""

const struct verb verbs[] = {
        { .word = "config",
          .operands = "",
          .run = cmd_config,
          .opts = OPTS(OPT_API_KEY, OPT_API_URL, OPT_CA_FINGERPRINT),
          .summary = "save the API's address and the key, and whom to believe",
          .detail = "They are kept in ~/.tensorone/config.toml, readable by you alone. The "
                    "environment variables TENSORONE_API_URL and TENSORONE_API_KEY, then "
                    "RUNPOD_API_URL and RUNPOD_API_KEY, take precedence over the file, and "
                    "TENSORONE_CA is --ca for all commands. Without an option the command prints "
                    "what is in use; the key itself is never printed. An API at https:// is "
                    "looked at before it is saved: when a private authority vouches for it, its "
                    "name and SHA-256 are shown, and it is trusted for this API if you say so, if "
                    "--fingerprint says the same, or if --ca names its file.",
          .examples = "tensoronecli config --apiUrl http://127.0.0.1:8080 --apiKey - < admin.key\n"
                      "tensoronecli config --apiUrl https://api.localhost:8443 --fingerprint "
                      "3f0e...\n"
                      "tensoronecli config" },
        { .word = "create",
          .noun = "cluster",
          .operands = "",
          .needs_api = true,
          .run = cmd_create,
          .opts = OPTS(CREATE_OPTS),
          .summary = "create one cluster",
          .detail = CREATE_DETAIL,
          .examples = CREATE_EXAMPLE("cluster") },
        { .word = "create",
          .noun = "clusters",
          .operands = "",
          .needs_api = true,
          .run = cmd_create,
          .opts = OPTS(CREATE_OPTS, OPT_CLUSTER_COUNT),
          .summary = "create several clusters",
          .detail = CREATE_DETAIL,
          .examples = CREATE_EXAMPLE(
                  "clusters") "\n"
                              "tensoronecli create clusters --clusterCount 2 --gpuCount 0 --imageName "
                              "docker.io/library/debian --args \"sleep infinity\" --wait" },
        { .word = "create",
          .noun = "secret",
          .operands = "NAME",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_secret_create,
          .opts = OPTS(OPT_SECRET_FILE, OPT_SECRET_TEXT),
          .summary = "keep a secret for the variables of clusters",
          .detail = "The value is asked for, or read from standard input or a file to its end, "
                    "less the last newline; it is never shown again. In the value of a variable "
                    "(--env, of a cluster or a template) {{ TENSORONE_SECRET_NAME }} stands for "
                    "it, whose place it takes when a cluster is started and nowhere else.",
          .examples =
                  "tensoronecli create secret hf_token\n"
                  "tensoronecli create secret key --file id.pem --description \"deploy key\"\n"
                  "tensoronecli create cluster --gpuCount 0 --imageName tensorone/starter --env "
                  "\"HF_TOKEN={{ TENSORONE_SECRET_hf_token }}\"" },
        { .word = "get",
          .noun = "cluster",
          .alias = "clusters",
          .operands = "[CLUSTER]",
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_get,
          .opts = OPTS(OPT_ALL_FIELDS),
          .summary = "list clusters, or show one",
          .examples = "tensoronecli get clusters\ntensoronecli get cluster k3x9 -a\n"
                      "tensoronecli get clusters -o json" },
        { .word = "get",
          .noun = "cloud",
          .operands = "[GPUCOUNT]",
          .max = 1,
          .needs_api = true,
          .run = cmd_get_cloud,
          .opts = OPTS(OPT_CLOUD_COMMUNITY, OPT_CLOUD_SECURE, OPT_CLOUD_DISK, OPT_CLOUD_MEM,
                       OPT_CLOUD_VCPU),
          .summary = "list GPU types with free instances and their prices",
          .examples = "tensoronecli get cloud\ntensoronecli get cloud 8 --mem 256" },
        { .word = "get",
          .noun = "gpus",
          .alias = "gpu",
          .operands = "",
          .needs_api = true,
          .run = cmd_get_gpus,
          .opts = OPTS(OPT_ALL_FIELDS, OPT_TOPO, OPT_P2P, OPT_VFIO),
          .summary = "list the host's GPUs; operators only",
          .detail =
                  "STATE is ok, or why the GPU is not rented out: unhealthy, lost, quarantined "
                  "(see gpu release), elsewhere, open. The matrices of --topo and --p2p are those of "
                  "nvidia-smi topo -m and topo -p2p.",
          .examples = "tensoronecli get gpus\ntensoronecli get gpus --topo\n"
                      "tensoronecli get gpus --vfio" },
        { .word = "get",
          .noun = "events",
          .alias = "event",
          .operands = "[OBJECT]",
          .max = 1,
          .needs_api = true,
          .run = cmd_get_events,
          .opts = OPTS(OPT_EVENT_KIND, OPT_EVENT_SINCE, OPT_LIMIT),
          .summary = "list what has happened to clusters and GPUs",
          .detail = "OBJECT is a cluster's or a GPU's ID. An account sees what happened to its "
                    "clusters and to GPUs while they had them; operators see everything. The "
                    "newest event comes last. Who did what with which key is told with --kind "
                    "audit, and with no other.",
          .examples = "tensoronecli get events --since 1h\n"
                      "tensoronecli get events --kind audit --since 24h\n"
                      "tensoronecli get events --kind gpu --limit 20" },
        { .word = "get",
          .noun = "secrets",
          .alias = "secret",
          .operands = "",
          .needs_api = true,
          .run = cmd_get_secrets,
          .opts = NO_OPTS,
          .summary = "list the account's secrets, without their values",
          .examples = "tensoronecli get secrets" },
        { .word = "start",
          .noun = "cluster",
          .alias = "clusters",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_start,
          .opts = OPTS(OPT_BID, OPT_RESUME_GPU_COUNT, OPT_WAIT),
          .summary = "start stopped clusters",
          .examples = "tensoronecli start cluster trainer --wait" },
        { .word = "stop",
          .noun = "cluster",
          .alias = "clusters",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_stop,
          .opts = OPTS(OPT_WAIT),
          .summary = "stop clusters; volumes are kept",
          .detail = "The main process gets SIGTERM and, ten seconds later, SIGKILL. The container "
                    "disk is wiped.",
          .examples = "tensoronecli stop cluster trainer" },
        { .word = "restart",
          .noun = "cluster",
          .alias = "clusters",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_restart,
          .opts = OPTS(OPT_WAIT),
          .summary = "stop clusters and start them again on the same host",
          .examples = "tensoronecli restart cluster trainer" },
        { .word = "update",
          .noun = "cluster",
          .alias = "clusters",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_update,
          .opts = OPTS(OPT_NEW_GPU_COUNT, OPT_NEW_VCPU, OPT_NEW_MEM, OPT_NEW_CONTAINER_DISK,
                       OPT_NEW_VOLUME_SIZE, OPT_EGRESS, OPT_ALLOWED_IPS, OPT_IDLE_TIMEOUT,
                       OPT_IDLE_ACTION, OPT_SEEN_VERSION, OPT_WAIT),
          .summary = "change what clusters have, while they run",
          .detail =
                  "What is not given stays as it is. In a cluster that runs, the change is made "
                  "at once and its programs go on; disks and volumes can only grow there, and "
                  "memory that is in use and GPUs that are open cannot be taken away. --egressAllow "
                  "is the whole list from then on, and ends connections to what is not in it; "
                  "0.0.0.0/0,::/0 is all that is public. --allowedIps is the whole list, too, of those who "
                  "may ask its web ports. A new --idleTimeout or --idleAction counts "
                  "from now on. One that "
                  "is stopped has it from its next start on. Without --wait the command returns "
                  "when the change is on its way to the host; with it, when the host has made "
                  "it, or has said why not, and then nothing has changed. Environment variables "
                  "inside, such as TENSORONE_GPU_COUNT, are those of the start.",
          .examples = "tensoronecli update cluster trainer --vcpu 8 --mem 64 --wait\n"
                      "tensoronecli update cluster trainer --gpuCount 0\n"
                      "tensoronecli update cluster trainer --egressAllow 198.51.100.0/24" },
        { .word = "remove",
          .noun = "cluster",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_remove,
          .opts = NO_OPTS,
          .summary = "remove clusters and their volumes for good",
          .examples = "tensoronecli remove cluster trainer" },
        { .word = "remove",
          .noun = "clusters",
          .operands = "NAME",
          .min = 1,
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_remove_named,
          .opts = OPTS(OPT_CLUSTER_COUNT),
          .summary = "remove clusters that have this name, as many as --clusterCount says",
          .examples = "tensoronecli remove clusters worker --clusterCount 4" },
        { .word = "top",
          .operands = "",
          .needs_api = true,
          .run = cmd_top,
          .opts = OPTS(OPT_TIMES, OPT_INTERVAL),
          .summary = "watch GPUs and clusters",
          .detail =
                  "Clusters are the account's own; the host's GPUs are shown to operators, "
                  "others see those of their clusters. CPU/MEM/IO WAIT is the part of the last ten "
                  "seconds in which something in a cluster waited for that. q ends it. Where standard output is no "
                  "terminal there is one picture, or as many as --times says.",
          .examples = "tensoronecli top\ntensoronecli top -n 1 --interval 5s" },
        { .word = "gpu",
          .noun = "release",
          .operands = "GPU...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_GPU,
          .needs_api = true,
          .run = cmd_gpu_release,
          .opts = NO_OPTS,
          .summary = "end the quarantine of GPUs, by id or index; operators only",
          .detail = "A GPU is quarantined when a check after a lease failed; get gpus says why. "
                    "After the release it is rented out again.",
          .examples = "tensoronecli gpu release 3" },
        { .word = "logs",
          .operands = "CLUSTER",
          .min = 1,
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_logs,
          .opts = OPTS(OPT_FOLLOW, OPT_TAIL, OPT_SINCE, OPT_TIMESTAMPS, OPT_STREAM),
          .summary = "print what a cluster's main process wrote",
          .examples = "tensoronecli logs -f --tail 100 trainer\n"
                      "tensoronecli logs --since 10m --timestamps trainer" },
        { .word = "open",
          .operands = "CLUSTER [PORT]",
          .min = 1,
          .max = 2,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_open,
          .opts = OPTS(OPT_URL_PATH),
          .summary = "print the URL of a cluster's web port",
          .detail =
                  "PORT is one of those that the cluster declares as PORT/http or PORT/http:private; it may be left "
                  "out where there is one only. A private port lets in whoever sends a key of its account "
                  "(Authorization: Bearer KEY), and whoever opens the URL that this prints, within 5 minutes: the "
                  "browser then has a cookie for that one name, for 12 hours. Both end at once when the API key that was "
                  "used here is removed. Give the URL to nobody who may not use the port.",
          .examples = "tensoronecli open trainer 8888\n"
                      "xdg-open \"$(tensoronecli open trainer 8888 --path /lab)\"" },
        { .word = "exec",
          .operands = "CLUSTER -- COMMAND [ARGUMENT...]",
          .min = 1,
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .command = true,
          .run = cmd_exec,
          .opts = OPTS(OPT_STDIN, OPT_TTY, OPT_EXEC_ENV, OPT_USER, OPT_CWD),
          .summary = "run a command in a cluster",
          .detail = "The exit status is the command's own; 128 plus the signal's number when a "
                    "signal ended it. Without a terminal, SIGINT, SIGTERM and SIGHUP are passed "
                    "on to the command.",
          .examples = "tensoronecli exec trainer -- nvidia-smi\n"
                      "tensoronecli exec -it trainer -- bash\n"
                      "tar c data | tensoronecli exec -i trainer -- tar x -C /workspace" },
        { .word = "image",
          .noun = "import",
          .operands = "NAME PATH",
          .min = 2,
          .max = 2,
          .complete = OPERAND_FILE,
          .needs_api = true,
          .run = cmd_image_import,
          .opts = OPTS(OPT_PUBLIC),
          .summary = "upload an image under a name of your own",
          .detail = "PATH is an OCI layout or what docker save wrote, as a directory or as a tar "
                    "archive; - reads a tar archive from standard input.",
          .examples = "tensoronecli image import my/model:1 ./layout\n"
                      "docker save my/model:1 | tensoronecli image import my/model:1 -" },
        { .word = "image",
          .noun = "pull",
          .operands = "IMAGE",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_image_pull,
          .opts = OPTS(OPT_FORCE, OPT_REGISTRY_AUTH),
          .summary = "fetch an image from its registry ahead of time",
          .examples = "tensoronecli image pull docker.io/library/debian:12" },
        { .word = "image",
          .noun = "ls",
          .alias = "list",
          .operands = "",
          .needs_api = true,
          .run = cmd_image_ls,
          .opts = NO_OPTS,
          .summary = "list the images that are present",
          .examples = "tensoronecli image ls" },
        { .word = "image",
          .noun = "rm",
          .alias = "remove",
          .operands = "IMAGE...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_IMAGE,
          .needs_api = true,
          .run = cmd_image_rm,
          .opts = NO_OPTS,
          .summary = "remove images",
          .examples = "tensoronecli image rm my/model:1" },
        { .word = "remove",
          .noun = "secret",
          .alias = "secrets",
          .operands = "SECRET...",
          .min = 1,
          .max = MANY,
          .needs_api = true,
          .run = cmd_secret_remove,
          .opts = NO_OPTS,
          .summary = "remove secrets, by id or name",
          .detail = "Clusters that name them go on; their next start is refused and says so.",
          .examples = "tensoronecli remove secret hf_token" },
        { .word = "registry-auth",
          .noun = "create",
          .operands = "NAME",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_registry_create,
          .opts = OPTS(OPT_REGISTRY_USER),
          .summary = "keep credentials for a registry",
          .detail = "The password is asked for, or read from standard input to its end; it "
                    "is never shown again. Clusters and templates use the credentials by their ID "
                    "(--registryAuthId), to pull images that they open for this account alone.",
          .examples = "tensoronecli registry-auth create hub --username ada\n"
                      "tensoronecli registry-auth create hub --username ada < token\n"
                      "tensoronecli registry-auth create gcp --username _json_key < key.json\n"
                      "tensoronecli create cluster --gpuCount 0 --imageName "
                      "registry.example/team/app:1 --registryAuthId ID" },
        { .word = "registry-auth",
          .noun = "update",
          .operands = "CREDENTIALS",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_registry_update,
          .opts = OPTS(OPT_REGISTRY_USER),
          .summary = "give credentials, by id or name, a new password",
          .examples = "tensoronecli registry-auth update hub < token" },
        { .word = "registry-auth",
          .noun = "ls",
          .alias = "list",
          .operands = "",
          .needs_api = true,
          .run = cmd_registry_ls,
          .opts = NO_OPTS,
          .summary = "list credentials for registries",
          .examples = "tensoronecli registry-auth ls" },
        { .word = "registry-auth",
          .noun = "rm",
          .alias = "remove",
          .operands = "CREDENTIALS...",
          .min = 1,
          .max = MANY,
          .needs_api = true,
          .run = cmd_registry_rm,
          .opts = NO_OPTS,
          .summary = "remove credentials, by id or name",
          .detail = "Clusters that name them go on; their next pull fails and says so.",
          .examples = "tensoronecli registry-auth rm hub" },
        { .word = "template",
          .noun = "create",
          .operands = "NAME",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_template_create,
          .opts = OPTS(OPT_IMAGE_NAME, OPT_CONTAINER_DISK, OPT_VOLUME_SIZE, OPT_VOLUME_PATH,
                       OPT_ARGS, OPT_ENV, OPT_PORTS, OPT_START_SSH, OPT_REGISTRY_AUTH,
                       OPT_SECURITY_PROFILE, OPT_READINESS_PATH, OPT_EGRESS, OPT_IDLE_TIMEOUT,
                       OPT_IDLE_ACTION, OPT_PUBLIC),
          .summary = "save a template for later clusters",
          .examples = "tensoronecli template create chat --imageName tensorone/llm-starter "
                      "--args \"python run.py\" --ports 8000/http" },
        { .word = "template",
          .noun = "ls",
          .alias = "list",
          .operands = "",
          .needs_api = true,
          .run = cmd_template_ls,
          .opts = NO_OPTS,
          .summary = "list templates",
          .examples = "tensoronecli template ls" },
        { .word = "template",
          .noun = "get",
          .operands = "TEMPLATE",
          .min = 1,
          .max = 1,
          .needs_api = true,
          .run = cmd_template_get,
          .opts = NO_OPTS,
          .summary = "show a template, by id or name",
          .examples = "tensoronecli template get chat" },
        { .word = "template",
          .noun = "rm",
          .alias = "remove",
          .operands = "TEMPLATE...",
          .min = 1,
          .max = MANY,
          .needs_api = true,
          .run = cmd_template_rm,
          .opts = NO_OPTS,
          .summary = "remove templates, by id or name",
          .examples = "tensoronecli template rm chat" },
        { .word = "ssh",
          .noun = "add-key",
          .operands = "",
          .needs_api = true,
          .run = cmd_ssh_add_key,
          .opts = OPTS(OPT_SSH_KEY, OPT_SSH_KEY_FILE),
          .summary = "add a public SSH key to the account",
          .detail =
                  "Clusters created with --startSSH have it at once, others from their next start "
                  "on, in the variable PUBLIC_KEY. Without "
                  "an option it is this computer's key for clusters, "
                  "~/.tensorone/ssh/id_ed25519, which is made when there is none.",
          .examples = "tensoronecli ssh add-key\n"
                      "tensoronecli ssh add-key --key-file ~/.ssh/id_ed25519.pub" },
        { .word = "ssh",
          .noun = "list-keys",
          .operands = "",
          .needs_api = true,
          .run = cmd_ssh_list_keys,
          .opts = NO_OPTS,
          .summary = "list the account's SSH keys",
          .detail = "The fingerprints are those that ssh-keygen -l prints.",
          .examples = "tensoronecli ssh list-keys" },
        { .word = "ssh",
          .noun = "remove-key",
          .operands = "",
          .needs_api = true,
          .run = cmd_ssh_remove_key,
          .opts = OPTS(OPT_SSH_KEY_NAME, OPT_SSH_FINGERPRINT),
          .summary = "remove an SSH key from the account",
          .detail =
                  "Connections that it has opened to clusters created with --startSSH are ended. An "
                  "image's own SSH server has it until its cluster is stopped.",
          .examples = "tensoronecli ssh remove-key --name ada@laptop\n"
                      "tensoronecli ssh remove-key --fingerprint "
                      "SHA256:XbqRvcMBQvFwY9OZxSbM/6x+PoJhuWcij5razDlmtXQ" },
        { .word = "ssh",
          .noun = "connect",
          .operands = "[CLUSTER]",
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_ssh_connect,
          .opts = NO_OPTS,
          .summary = "print the command that opens an SSH session",
          .detail = "Of each cluster that has an SSH server, or of one.",
          .examples = "tensoronecli ssh connect\ntensoronecli ssh connect trainer" },
        { .word = "ssh",
          .noun = "config",
          .operands = "CLUSTER...",
          .min = 1,
          .max = MANY,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .run = cmd_ssh_config,
          .opts = NO_OPTS,
          .summary = "print what ssh, scp, sftp and rsync need to know of clusters",
          .detail = "Hosts for ~/.ssh/config, or for a file that -F names. The host key is checked "
                    "against what the API says.",
          .examples = "tensoronecli ssh config trainer >> ~/.ssh/config\n"
                      "scp model.bin trainer:/workspace/" },
        { .word = "ssh",
          .operands = "CLUSTER [-- COMMAND [ARGUMENT...]]",
          .min = 1,
          .max = 1,
          .complete = OPERAND_CLUSTER,
          .needs_api = true,
          .command = true,
          .maybe = true,
          .run = cmd_ssh,
          .opts = OPTS(OPT_SSH_LOCAL, OPT_SSH_REMOTE, OPT_SSH_DYNAMIC, OPT_SSH_NOTHING),
          .summary = "open an SSH session in a cluster",
          .detail = "Of one that was created with --startSSH. The system's ssh is started with the "
                    "right options: the way through the API, so no port needs to be open; the host "
                    "key, checked against what the API says; the key of ssh add-key, if there is "
                    "one, beside ssh's own.",
          .examples = "tensoronecli ssh trainer\n"
                      "tensoronecli ssh trainer -- nvidia-smi -L\n"
                      "tensoronecli ssh -N -L 8888:localhost:8888 trainer" },
        { .word = "version",
          .operands = "",
          .run = cmd_version,
          .opts = NO_OPTS,
          .summary = "print the version" },
        { .word = "completion",
          .operands = "bash|zsh|fish",
          .min = 1,
          .max = 1,
          .complete = OPERAND_SHELL,
          .run = cmd_completion,
          .opts = NO_OPTS,
          .summary = "print the completion script of a shell",
          .examples = "tensoronecli completion bash > /etc/bash_completion.d/tensoronecli" },
        { .word = "man",
          .operands = "",
          .hidden = true,
          .run = cmd_man,
          .opts = NO_OPTS,
          .summary = "print the manual page" },
        { .word = "__complete",
          .operands = "clusters|images|gpus",
          .min = 1,
          .max = 1,
          .hidden = true,
          .run = cmd_complete,
          .opts = NO_OPTS,
          .summary = "print words for the shell's completion" },
};
const size_t n_verbs = NELEM(verbs);

const struct verb *verb_find(const char *word, const char *noun)
{
        for (size_t i = 0; i < n_verbs; i++) {
                const struct verb *v = &verbs[i];

                if (!str_eq(v->word, word))
                        continue;
                if (!v->noun || (noun && (str_eq(v->noun, noun) || str_eq(v->alias, noun))))
                        return v;
        }
        return NULL;
}

const char *verb_title(const struct verb *v, char *buf, size_t len)
{
        (void) snprintf(buf, len, "%s%s%s", v->word, v->noun ? " " : "", v->noun ? v->noun : "");
        return buf;
}

bool verb_takes(const struct verb *v, enum opt_id id)
{
        if (option_is_global(id))
                return true;
        for (const enum opt_id *o = v->opts; *o != OPT_NONE; o++)
                if (*o == id)
                        return true;
        return false;
}
