/* schema.c - tables of the store: their columns for the back ends, and the SQL that makes them.
 * A change of a table is a new script at the end, never an edit of an old one, and the same change
 * in the column table.  A unit test compares the two. */
#include "control/store/schema.h"

#include <assert.h>

#include "control/store/store.h"

#define T(c)                                                                                       \
        {                                                                                          \
#c, COL_TEXT                                                                       \
        }
#define I(c)                                                                                       \
        {                                                                                          \
#c, COL_INT                                                                        \
        }
#define B(c)                                                                                       \
        {                                                                                          \
#c, COL_BOOL                                                                       \
        }
#define J(c)                                                                                       \
        {                                                                                          \
#c, COL_JSON                                                                       \
        }
#define K(c)                                                                                       \
        {                                                                                          \
#c, COL_TEXT                                                                       \
        } /* a key column */

static const struct store_column setting_cols[] = { K(name), T(value) };
static const struct store_column account_cols[] = { K(id),      T(name),  T(email),
                                                    T(pub_key), B(admin), I(created_us) };
static const struct store_column api_key_cols[] = { K(id),   T(account), T(name),   T(prefix),
                                                    T(hash), T(cluster), T(rights), I(created_us) };
static const struct store_column template_cols[] = {
        K(id),
        T(account),
        T(name),
        T(image),
        T(docker_args),
        J(env),
        T(ports),
        T(volume_path),
        I(volume_gib),
        I(container_disk_gib),
        T(readme),
        T(category),
        T(start_script),
        T(registry_auth),
        B(is_serverless),
        B(is_public),
        B(start_ssh),
        B(start_jupyter),
        B(advanced_start),
        I(created_us),
        T(security_profile),
        J(egress),
        I(idle_timeout_s),
        T(idle_action),
        T(readiness_path),
};
static const struct store_column cluster_cols[] = {
        K(id),
        T(account),
        T(name),
        T(image),
        T(template_id),
        T(docker_args),
        J(env),
        T(ports),
        T(volume_path),
        I(container_disk_gib),
        I(volume_gib),
        I(vcpu),
        I(memory_mib),
        I(gpu_count),
        T(gpu_type),
        T(registry_auth),
        J(cpus),
        T(pod_type),
        B(locked),
        T(desired),
        T(state),
        B(released),
        I(generation),
        T(reason),
        T(address),
        I(created_us),
        I(started_us),
        T(status_change),
        I(stop_after_us),
        I(terminate_after_us),
        I(exit_code),
        I(restarts),
        I(oom_kills),
        J(plan),
        J(gpu_receipts),
        I(boot),
        J(applied),
        T(refused),
        T(security_profile),
        J(egress),
        I(idle_timeout_s),
        T(idle_action),
        J(idle),
        T(published),
        T(public_ip),
        B(ready),
        I(ready_generation),
        B(start_ssh),
        T(readiness_path),
        J(allowed_ips),
};
static const struct store_column reservation_cols[] = {
        K(node), K(kind), K(resource), T(cluster), I(generation), I(amount), T(state),
};
static const struct store_column event_cols[] = { K(id),   I(at_us),   T(account), T(cluster),
                                                  T(kind), T(message), T(object) };
static const struct store_column registry_auth_cols[] = {
        K(id), T(account), T(name), T(username), T(password), I(created_us),
};
static const struct store_column audit_cols[] = {
        K(id),     I(at_us),   T(account), T(cluster),   T(kind),
        T(object), T(message), T(actor),   T(operation), T(outcome),
};
static const struct store_column secret_cols[] = {
        K(id), T(account), T(name), T(description), T(value), I(created_us),
};
#undef T
#undef I
#undef B
#undef J
#undef K

const struct store_table_desc store_tables[ST_TABLE_COUNT] = {
        [ST_NONE] = { "", NULL, 0, 0 },
        [ST_SETTING] = { "setting", setting_cols, NELEM(setting_cols), 1 },
        [ST_ACCOUNT] = { "account", account_cols, NELEM(account_cols), 1 },
        [ST_API_KEY] = { "api_key", api_key_cols, NELEM(api_key_cols), 1 },
        [ST_TEMPLATE] = { "template", template_cols, NELEM(template_cols), 1 },
        [ST_CLUSTER] = { "cluster", cluster_cols, NELEM(cluster_cols), 1 },
        [ST_RESERVATION] = { "reservation", reservation_cols, NELEM(reservation_cols), 3 },
        [ST_EVENT] = { "event", event_cols, NELEM(event_cols), 1 },
        [ST_REGISTRY_AUTH] = { "registry_auth", registry_auth_cols, NELEM(registry_auth_cols), 1 },
        [ST_AUDIT] = { "audit", audit_cols, NELEM(audit_cols), 1 },
        [ST_SECRET] = { "secret", secret_cols, NELEM(secret_cols), 1 },
};

static const char version_1[] =
        "CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL);"
        "CREATE TABLE account (id TEXT PRIMARY KEY, name TEXT NOT NULL UNIQUE, email TEXT,"
        " pub_key TEXT, admin INTEGER NOT NULL, created_us BIGINT NOT NULL);"
        "CREATE TABLE api_key (id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT,"
        " prefix TEXT NOT NULL, hash TEXT NOT NULL UNIQUE, cluster TEXT, rights TEXT NOT NULL,"
        " created_us BIGINT NOT NULL);"
        "CREATE TABLE template (id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL,"
        " image TEXT NOT NULL, docker_args TEXT, env TEXT, ports TEXT, volume_path TEXT,"
        " volume_gib BIGINT NOT NULL, container_disk_gib BIGINT NOT NULL, readme TEXT,"
        " category TEXT, start_script TEXT, registry_auth TEXT, is_serverless INTEGER NOT NULL,"
        " is_public INTEGER NOT NULL, start_ssh INTEGER NOT NULL, start_jupyter INTEGER NOT NULL,"
        " advanced_start INTEGER NOT NULL, created_us BIGINT NOT NULL, UNIQUE (account, name));"
        "CREATE TABLE cluster (id TEXT PRIMARY KEY, account TEXT NOT NULL, name TEXT NOT NULL,"
        " image TEXT NOT NULL, template_id TEXT, docker_args TEXT, env TEXT, ports TEXT,"
        " volume_path TEXT, container_disk_gib BIGINT NOT NULL, volume_gib BIGINT NOT NULL,"
        " vcpu BIGINT NOT NULL, memory_mib BIGINT NOT NULL, gpu_count BIGINT NOT NULL,"
        " gpu_type TEXT, registry_auth TEXT, cpus TEXT, pod_type TEXT NOT NULL,"
        " locked INTEGER NOT NULL, desired TEXT NOT NULL, state TEXT NOT NULL,"
        " released INTEGER NOT NULL, generation BIGINT NOT NULL, reason TEXT, address TEXT,"
        " created_us BIGINT NOT NULL, started_us BIGINT NOT NULL, status_change TEXT,"
        " stop_after_us BIGINT NOT NULL, terminate_after_us BIGINT NOT NULL,"
        " exit_code BIGINT NOT NULL, restarts BIGINT NOT NULL, oom_kills BIGINT NOT NULL,"
        " plan TEXT);"
        "CREATE INDEX cluster_by_account ON cluster (account);"
        /* the primary key is what keeps a resource from being sold twice */
        "CREATE TABLE reservation (node TEXT NOT NULL, kind TEXT NOT NULL, resource TEXT NOT NULL,"
        " cluster TEXT NOT NULL, generation BIGINT NOT NULL, amount BIGINT NOT NULL,"
        " state TEXT NOT NULL, PRIMARY KEY (node, kind, resource));"
        "CREATE INDEX reservation_by_cluster ON reservation (cluster);"
        "CREATE TABLE event (id TEXT PRIMARY KEY, at_us BIGINT NOT NULL, account TEXT,"
        " cluster TEXT, kind TEXT NOT NULL, message TEXT);";

/* `password` is sealed (control/seal/seal.h) */
static const char version_2[] =
        "CREATE TABLE registry_auth (id TEXT PRIMARY KEY, account TEXT NOT NULL,"
        " name TEXT NOT NULL, username TEXT NOT NULL, password TEXT NOT NULL,"
        " created_us BIGINT NOT NULL, UNIQUE (account, name));";

/* what an event is about, when that is no cluster */
static const char version_3[] = "ALTER TABLE event ADD COLUMN object TEXT;";

static const char version_4[] = "ALTER TABLE cluster ADD COLUMN gpu_receipts TEXT;";

/* `applied`: the plan before a change that the engine has not answered yet */
static const char version_5[] = "ALTER TABLE cluster ADD COLUMN boot BIGINT NOT NULL DEFAULT 0;"
                                "ALTER TABLE cluster ADD COLUMN applied TEXT;"
                                "ALTER TABLE cluster ADD COLUMN refused TEXT;";

/* `value` is sealed (control/seal/seal.h) */
static const char version_6[] = "CREATE TABLE secret (id TEXT PRIMARY KEY, account TEXT NOT NULL,"
                                " name TEXT NOT NULL, description TEXT, value TEXT NOT NULL,"
                                " created_us BIGINT NOT NULL, UNIQUE (account, name));";

static const char version_7[] = "ALTER TABLE cluster ADD COLUMN security_profile TEXT;"
                                "ALTER TABLE template ADD COLUMN security_profile TEXT;";

static const char version_8[] = "CREATE TABLE audit (id TEXT PRIMARY KEY, at_us BIGINT NOT NULL,"
                                " account TEXT, cluster TEXT, kind TEXT NOT NULL, object TEXT,"
                                " message TEXT, actor TEXT, operation TEXT, outcome TEXT);";

static const char version_9[] = "ALTER TABLE cluster ADD COLUMN egress TEXT;"
                                "ALTER TABLE template ADD COLUMN egress TEXT;";

/* `idle`: the idle clock (model/idle.h) */
static const char version_10[] =
        "ALTER TABLE cluster ADD COLUMN idle_timeout_s BIGINT NOT NULL DEFAULT 0;"
        "ALTER TABLE cluster ADD COLUMN idle_action TEXT;"
        "ALTER TABLE cluster ADD COLUMN idle TEXT;"
        "ALTER TABLE template ADD COLUMN idle_timeout_s BIGINT NOT NULL DEFAULT 0;"
        "ALTER TABLE template ADD COLUMN idle_action TEXT;";

/* the cluster's TCP ports on its host */
static const char version_11[] = "ALTER TABLE cluster ADD COLUMN published TEXT;"
                                 "ALTER TABLE cluster ADD COLUMN public_ip TEXT;";

/* whether what it declares answers */
static const char version_12[] =
        "ALTER TABLE cluster ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;"
        "ALTER TABLE cluster ADD COLUMN ready_generation BIGINT NOT NULL DEFAULT 0;";

static const char version_13[] =
        "ALTER TABLE cluster ADD COLUMN start_ssh INTEGER NOT NULL DEFAULT 0;";

static const char version_14[] = "ALTER TABLE cluster ADD COLUMN readiness_path TEXT;"
                                 "ALTER TABLE template ADD COLUMN readiness_path TEXT;";

static const char version_15[] = "ALTER TABLE cluster ADD COLUMN allowed_ips TEXT;";

const char *const store_migrations[] = {
        version_1, version_2,  version_3,  version_4,  version_5,  version_6,  version_7, version_8,
        version_9, version_10, version_11, version_12, version_13, version_14, version_15
};
const size_t store_n_migrations = NELEM(store_migrations);
