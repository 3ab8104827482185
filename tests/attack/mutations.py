"""One row for each defence that tests/attack/mutate switches off: the edits that do it, and the tests
that must go red by their canary.

Where two defences cover the same way, one alone is not seen through: then the row takes both away, and
says so.  What cannot be shown without endangering the machine is in NOT_SHOWN, with the reason."""
import dataclasses


@dataclasses.dataclass(frozen=True)
class Mutation:
    name: str
    defence: str
    edits: tuple  # (file, or files by |: the first that is there; text that is in it once; what it becomes)
    tests: tuple


SECCOMP = "data/policy/seccomp.policy"
MASKS = "data/policy/masks.policy"
CONFINE = "src/engine/sandbox/confine.c"
SANDBOX = "src/engine/sandbox/sandbox.c"
NFT = "src/engine/net/nft_rules.c"
SPOOFED = '"    iifname . ether saddr . ip saddr != @sources drop comment \\"spoofed\\"\\n"'
SPOOFED6 = '"    iifname . ether saddr . ip6 saddr != @sources6 drop comment \\"spoofed\\"\\n"'
SAME_IDS = ("src/engine/claim/claim.h", "return CLAIM_ID_BASE + slot * 65536U;", "(void) slot;\n        return 0x6e000000U;")
HOST_IDS = (("src/engine/claim/claim.h", "return CLAIM_ID_BASE + slot * 65536U;", "(void) slot;\n        return 0;"),
            ("src/engine/idmap.c", "if (id_base == 0 || id_base > UINT32_MAX", "if (id_base > UINT32_MAX"),
            ("src/engine/sandbox/shell.c", "if (p->id_base == 0 || p->id_base >", "if (p->id_base >"))

FIRST = "src/engine/sandbox/first.c"
LEFT_OPEN = ("                r = fd_close_except(STDERR_FILENO + 1, keep, NELEM(keep));\n", "                (void) keep;\n")


def opened(flags):
    """The launcher leaves the host's root open."""
    old = "        (void) umask(022);\n        r = prepare("
    return FIRST, old, old.replace("r = prep", "(void) open(\"/\", O_PATH%s);\n        r = prep" % flags)


MUTATIONS = (
    Mutation("program-in-memory", "sessions come out of a copy of our program that only root reads", (
        (SANDBOX, "return copied ? in_memory(fd, path, st.st_size, e) : fd_take(&fd);", "return fd_take(&fd);"),
        (SANDBOX, "static int in_memory(", "__attribute__((unused)) static int in_memory("),
    ), ("test_runtime.py::test_cve_2019_5736_overwriting_the_hosts_binary",)),
    Mutation("openat2", "RESOLVE_IN_ROOT, NO_MAGICLINKS where something is mounted or made", (
        ("src/base/fd.c", "return open2(dirfd, path, flags, mode, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);",
         "path += strspn(path, \"/\");\n        return open2(dirfd, *path ? path : \".\", flags, mode, 0);"),
    ), ("test_runtime.py::test_cve_2021_30465_mount_races",)),
    Mutation("seccomp", "the system call filter (here: clone with CLONE_PARENT)", (
        (SECCOMP, "allow clone if a0&0x7e028000==0\nEPERM clone\n", "allow clone\n"),
    ), ("test_kernel.py::test_children_for_the_monitor",)),
    Mutation("no-new-privs-nosuid", "no_new_privs and nosuid mounts (both: each alone suffices)", (
        (CONFINE, "if (!p->new_privs && prctl(PR_SET_NO_NEW_PRIVS", "if (p->new_privs && prctl(PR_SET_NO_NEW_PRIVS"),
        ("src/engine/sandbox/mounts.c", "? 0 : MOUNT_ATTR_NOSUID", "? 0 : 0"),
    ), ("test_runtime.py::test_set_id_programs_give_nothing",)),
    Mutation("session-ids", "a session's own group (its ids are set before execve)", (
        (CONFINE, "if (setresgid(gid, gid, gid) < 0)", "if (gid == (gid_t) -1)"),
    ), ("test_runtime.py::test_cve_2022_27650_2026_30892_exec_identity",)),
    Mutation("closed-descriptors", "what the launcher has open is closed before it has a program, and again before execve (here: the "
             "host's root; both: each alone suffices)", (
        opened(""),
        (FIRST, *LEFT_OPEN),
        (FIRST, "        r = fd_close_from(REPORT_FD + 1);\n", "        r = 0;\n"),
    ), ("test_runtime.py::test_cve_2024_21626_first_process",)),
    Mutation("cwd-inside", "a working directory is looked up in the cluster's root, without magic links, and has a name there "
             "(with a descriptor of the host's root that execve closes)", (
        opened(" | O_CLOEXEC"),
        (FIRST, *LEFT_OPEN),
        (FIRST, "        AUTO(fd) int fd = root_mkdirs(root, cwd, 0755);\n",
         "        AUTO(fd) int fd = open(cwd, O_PATH | O_CLOEXEC);\n\n        (void) root;\n"),
        (FIRST, "if (syscall(SYS_getcwd, buf, sizeof buf) < 0 || buf[0] != '/')", "if (syscall(SYS_getcwd, buf, sizeof buf) == 0)"),
    ), ("test_runtime.py::test_cve_2024_21626_as_an_image",)),
    Mutation("masks", "what of /proc is hidden (here: interrupts)", (
        (MASKS, "hide /proc/interrupts ", "# hide /proc/interrupts "),
    ), ("test_runtime.py::test_cve_2025_31133_masked_paths",)),
    Mutation("id-ranges", "a range of ids for each cluster", (SAME_IDS,),
             ("test_kernel.py::test_what_is_counted_by_user",)),
    Mutation("proc-sys", "read-only /proc/sys (with the host's ids: the user namespace alone suffices)", (
        *HOST_IDS, (MASKS, "read-only /proc/sys\n", ""),
    ), ("test_kernel.py::test_sysctls_of_the_host",)),
    Mutation("device-cgroup", "the group's device rules", (
        ("src/engine/slice/slice_device.c", "if (!wanted)\n", "if (!wanted && d->major < 0)\n"),
    ), ("test_gpu.py::test_gpu_of_a_neighbour",)),
    Mutation("cluster-to-cluster", "the firewall between clusters of two accounts", (
        (NFT, '"    drop comment \\"no way to another account\'s cluster\\"\\n"', '"    accept\\n"'),
        (NFT, '"    ct status dnat accept comment \\"published\\"\\n"\n        "    drop\\n"',
         '"    ct status dnat accept comment \\"published\\"\\n"\n        "    accept\\n"'),
    ), ("test_tenants.py::test_network_scan", "test_tenants.py::test_network_scan_ipv6")),
    Mutation("cluster-to-host", "the firewall between clusters and the host", (
        (NFT, '"    fib daddr type != unicast drop comment \\"the host itself, broadcast, multicast\\"\\n"\n'
              '        "    iifname vmap @limited', '"    iifname vmap @limited'),
        (NFT, '"    iifname @links drop\\n"\n', ""),
    ), ("test_tenants.py::test_network_scan", "test_tenants.py::test_network_scan_ipv6")),
    Mutation("spoofing", "the firewall's sources", ((NFT, SPOOFED + "\n", ""),), ("test_tenants.py::test_spoofing",)),
    Mutation("metadata", "link-local addresses, the clouds' metadata", (
        (NFT, "ip daddr { 0.0.0.0/8, 127.0.0.0/8, 169.254.0.0/16 } drop", "ip daddr { 0.0.0.0/8, 127.0.0.0/8 } drop"),
    ), ("test_tenants.py::test_metadata_and_private_networks",)),
    Mutation("spoofing-ipv6", "the firewall's sources of IPv6", ((NFT, SPOOFED6 + "\n", ""),), ("test_tenants.py::test_spoofing_ipv6",)),
    Mutation("metadata-ipv6", "private networks of IPv6, where clouds' metadata is, too", (
        (NFT, 'ip6 daddr { fc00::/7, 64:ff9b:1::/48, 2001::/32, 2002::/16 } drop', 'ip6 daddr { 64:ff9b:1::/48, 2001::/32, 2002::/16 } drop'),
    ), ("test_tenants.py::test_metadata_and_private_networks_ipv6",)),
    Mutation("registry-addresses", "where a fetcher may go (its own check, and the firewall's for its uid: either suffices)", (
        ("src/fetch/addr.c", "                if ((a & mask) == prefixes4[i].net)\n", "                if ((a & mask) == 1 + prefixes4[i].net)\n"),
        (NFT, '"    meta skuid & 0xffff0000 @fetchers jump from_fetcher\\n"', '""'),
    ), ("test_tenants.py::test_registry_redirects_and_token_realms",)),
    Mutation("layer-xattrs", "extended attributes of layers (fetcher, store and writer of metadata: each suffices)", (
        ("src/store/erofs_dir.c", "        bool user = x->name[0] == 'u';\n",
         "        bool user = x->name[0] == 'u';\n\n        if (x->name[0] == 't') {\n                *ret_skip = strlen(\"trusted.\");\n"
         "                return XATTR_TRUSTED;\n        }\n"),
        ("src/store/layer_index.c", "return is_capability(name, len) ||", "return is_capability(name, len) || begins(name, len, \"trusted.\") ||"),
    ), ("test_kernel.py::test_overlay_xattrs_from_a_layer",)),
    Mutation("api-ownership", "what belongs to another account does not exist", (
        ("src/control/plane/plane.c", "if (!str_eq(c->account, who->account))\n                return false;", "if (!c->account)\n                return false;"),
    ), ("test_api_ids.py::test_every_operation_with_a_foreign_id",)),
    Mutation("secret-ownership", "another account's secret does not exist", (
        ("src/control/plane/secret.c", "return s && str_eq(s->account, who->account) ? s : NULL;",
         "(void) who;\n        return s;"),
    ), ("test_api_ids.py::test_every_rest_path_with_a_foreign_id",)),
    Mutation("secret-by-name", "a placeholder names a secret of the cluster's own account", (
        ("src/control/plane/secret.c", "                if (!str_eq(s->account, account))\n                        continue;\n",
         "                (void) account;\n"),
    ), ("test_api_ids.py::test_a_foreign_secret_is_not_there",)),
    Mutation("image-ownership", "what another account has uploaded is not found by its name", (
        ("src/engine/image/lookup.c", "WHERE n.reference = ?1 AND (n.account IN (?2, '') OR n.public)\"",
         "WHERE n.reference = ?1 AND (n.account IN (?2, '') OR 1)\""),
    ), ("test_api_ids.py::test_a_foreign_image_is_not_there",)),
)

# (defence, test, why its loss cannot be shown by a canary here)
NOT_SHOWN = (
    ("capabilities that root inside does not keep", "test_surface, test_spoofing",
     "the rest counts in the cluster's user namespace alone, its network namespace is the host's: NET_ADMIN kept opens nothing"),
    ("process numbers of its own", "test_proc_of_others", "without them no cluster starts: the kernel refuses its /proc"),
    ("network of its own", "test_abstract_unix_sockets", "without it no cluster starts: its link is not there"),
    ("mount namespace", "test_cve_2026_41579_47766_dev_as_a_link",
     "without it the first process would unmount the machine's own tree"),
    ("user namespace as such", "test_sysctls_of_the_host",
     "its id map is switched off in proc-sys; root inside with the host's own capabilities is nothing to start here"),
    ("not dumpable while a session begins", "test_cve_2019_5736_overwriting_the_hosts_binary",
     "the kernel makes it so, too, when the ids change; taking ours away alone changes nothing"),
    ("read-only /sys and groups", "test_cgroup_escape_release_agent",
     "with the host's ids, root inside could lift limits of the machine's own groups"),
    ("system calls that need the host's capabilities (bpf, kexec, modules, ...)", "test_surface",
     "the user namespace refuses them, too; without it they would act on this machine"),
)
