#include "engine/policy.h"

#include <arpa/inet.h>
#include <sodium.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <uthash.h>
#include <zmq.h>

#include "base/err.h"

struct user {
    UT_hash_handle hh; /* by the name */
    size_t name_len;
    char name[GR_POLICY_NAME_MAX];
    bool has_password;
    bool is_slow; /* its password is in argon2, else in quick */
    uint8_t quick[GR_POLICY_HASH_LEN];
    char argon2[crypto_pwhash_STRBYTES];
};

struct key {
    UT_hash_handle hh;
    uint8_t bytes[GR_POLICY_KEY_LEN];
    struct user *user;
};

struct address {
    struct address *next;
    bool allow;
    int family;    /* AF_INET, AF_INET6, or 0 for text */
    unsigned bits; /* of the prefix */
    uint8_t bytes[16];
    size_t text_len;
    char text[];
};

struct gr_policy {
    atomic_uint holders;
    struct user *users;
    struct key *keys;
    struct address *addresses;
    bool any_key, null;
    bool any_slow;    /* then unknown users cost as much as these */
    bool any_allowed; /* an address */
    char argon2_of_nobody[crypto_pwhash_STRBYTES];
    uint8_t hash_key[crypto_generichash_KEYBYTES];
};

int gr_policy_new(gr_policy **out)
{
    if (sodium_init() < 0)
        return GR_ESYSTEM;
    gr_policy *self = calloc(1, sizeof(*self));
    if (self == NULL)
        return GR_ENOMEM;
    atomic_init(&self->holders, 1);
    randombytes_buf(self->hash_key, sizeof(self->hash_key));
    *out = self;
    return 0;
}

gr_policy *gr_policy_hold(gr_policy *self)
{
    atomic_fetch_add(&self->holders, 1);
    return self;
}

void gr_policy_release(gr_policy **policy)
{
    gr_policy *self = *policy;
    *policy = NULL;
    if (self == NULL || atomic_fetch_sub(&self->holders, 1) > 1)
        return;
    struct key *key, *next_key;
    HASH_ITER (hh, self->keys, key, next_key) {
        HASH_DEL(self->keys, key);
        free(key);
    }
    struct user *user, *next_user;
    HASH_ITER (hh, self->users, user, next_user) {
        HASH_DEL(self->users, user);
        sodium_memzero(user, sizeof(*user));
        free(user);
    }
    while (self->addresses != NULL) {
        struct address *gone = self->addresses;
        self->addresses = gone->next;
        free(gone);
    }
    sodium_memzero(self, sizeof(*self));
    free(self);
}

/* --- filling ----------------------------------------------------------------------------- */

static struct user *find(const gr_policy *self, gr_slice name)
{
    struct user *found = NULL;
    if (name.len > 0 && name.len <= GR_POLICY_NAME_MAX)
        HASH_FIND(hh, self->users, name.data, name.len, found);
    return found;
}

static int find_or_add(gr_policy *self, gr_slice name, struct user **out)
{
    if (name.len == 0 || name.len > GR_POLICY_NAME_MAX)
        return GR_EINVAL;
    *out = find(self, name);
    if (*out != NULL)
        return 0;
    struct user *added = calloc(1, sizeof(*added));
    if (added == NULL)
        return GR_ENOMEM;
    memcpy(added->name, name.data, name.len);
    added->name_len = name.len;
    HASH_ADD_KEYPTR(hh, self->users, added->name, added->name_len, added);
    *out = added;
    return 0;
}

/* A check of anybody is to cost what it costs for those who are there. */
static int prepare_nobody(gr_policy *self)
{
    static const char password[] = "nobody";
    if (self->any_slow)
        return 0;
    if (crypto_pwhash_str(self->argon2_of_nobody, password, sizeof(password) - 1,
                          crypto_pwhash_OPSLIMIT_INTERACTIVE,
                          crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0)
        return GR_ENOMEM;
    self->any_slow = true;
    return 0;
}

static int set_argon2(gr_policy *self, struct user *user, gr_slice hash)
{
    char text[crypto_pwhash_STRBYTES] = "";
    if (hash.len >= sizeof(text))
        return GR_EINVAL;
    memcpy(text, hash.data, hash.len);
    if (crypto_pwhash_str_needs_rehash(text, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                       crypto_pwhash_MEMLIMIT_INTERACTIVE) < 0)
        return GR_EINVAL;
    int rc = prepare_nobody(self);
    if (rc < 0)
        return rc;
    memcpy(user->argon2, text, sizeof(text));
    user->is_slow = true;
    return 0;
}

int gr_policy_add_user(gr_policy *self, gr_slice name, gr_slice secret)
{
    static const char prefix[] = "$argon2";
    struct user *user;
    if (secret.len == 0 || secret.len > GR_POLICY_NAME_MAX)
        return GR_EINVAL;
    int rc = find_or_add(self, name, &user);
    if (rc < 0)
        return rc;
    if (secret.len > sizeof(prefix) && memcmp(secret.data, prefix, sizeof(prefix) - 1) == 0) {
        rc = set_argon2(self, user, secret);
    } else {
        user->is_slow = false;
        gr_policy_hash(self, name, secret, user->quick);
    }
    if (rc == 0)
        user->has_password = true;
    return rc;
}

int gr_policy_add_key(gr_policy *self, gr_slice name, const uint8_t bytes[GR_POLICY_KEY_LEN])
{
    struct user *user;
    struct key *key;
    HASH_FIND(hh, self->keys, bytes, GR_POLICY_KEY_LEN, key);
    int rc = find_or_add(self, name, &user);
    if (rc < 0)
        return rc;
    if (key != NULL)
        return key->user == user ? 0 : GR_EINVAL;
    key = calloc(1, sizeof(*key));
    if (key == NULL)
        return GR_ENOMEM;
    memcpy(key->bytes, bytes, GR_POLICY_KEY_LEN);
    key->user = user;
    HASH_ADD(hh, self->keys, bytes, GR_POLICY_KEY_LEN, key);
    return 0;
}

void gr_policy_allow_any_key(gr_policy *self)
{
    self->any_key = true;
}

void gr_policy_allow_null(gr_policy *self)
{
    self->null = true;
}

/* Returns the family, 0 when it is no IP address. An IPv4 address may come as an IPv6 one. */
static int parse_ip(const char *text, uint8_t bytes[16])
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    if (inet_pton(AF_INET, text, bytes) == 1)
        return AF_INET;
    if (inet_pton(AF_INET6, text, bytes) != 1)
        return 0;
    if (memcmp(bytes, mapped, sizeof(mapped)) != 0)
        return AF_INET6;
    memmove(bytes, bytes + sizeof(mapped), 4);
    return AF_INET;
}

/* Fills in an address with the length of its prefix; anything else stays text. */
static int read_pattern(struct address *self, char *text)
{
    char *slash = strchr(text, '/');
    if (slash != NULL)
        *slash = '\0';
    self->family = parse_ip(text, self->bytes);
    unsigned most = self->family == AF_INET ? 32 : 128;
    self->bits = most;
    if (slash == NULL)
        return 0;
    char *end;
    unsigned long bits = strtoul(slash + 1, &end, 10);
    if (self->family == 0 || slash[1] < '0' || slash[1] > '9' || *end != '\0' || bits > most)
        return GR_EINVAL;
    self->bits = (unsigned)bits;
    return 0;
}

int gr_policy_add_address(gr_policy *self, gr_slice address, bool allow)
{
    char text[GR_POLICY_NAME_MAX + 1] = "";
    if (address.len == 0 || address.len > GR_POLICY_NAME_MAX)
        return GR_EINVAL;
    struct address *added = calloc(1, sizeof(*added) + address.len);
    if (added == NULL)
        return GR_ENOMEM;
    memcpy(text, address.data, address.len);
    memcpy(added->text, address.data, address.len);
    added->text_len = address.len;
    added->allow = allow;
    int rc = read_pattern(added, text);
    if (rc < 0) {
        free(added);
        return rc;
    }
    self->any_allowed = self->any_allowed || allow;
    added->next = self->addresses;
    self->addresses = added;
    return 0;
}

/* --- asking ------------------------------------------------------------------------------ */

static bool has_prefix(const uint8_t a[16], const uint8_t b[16], unsigned bits)
{
    unsigned bytes = bits / 8, rest = bits % 8;
    if (memcmp(a, b, bytes) != 0)
        return false;
    return rest == 0 || (a[bytes] ^ b[bytes]) >> (8 - rest) == 0;
}

/* libzmq gives ":uid:gid:pid" for peers over ipc. */
static bool is_ipc(gr_slice address)
{
    return address.len > 0 && address.data[0] == ':' &&
           memchr(address.data + 1, ':', address.len - 1);
}

static bool matches(const struct address *self, gr_slice address, int family,
                    const uint8_t bytes[16])
{
    gr_slice text = gr_slice_of(self->text, self->text_len);
    if (self->family != 0)
        return self->family == family && has_prefix(self->bytes, bytes, self->bits);
    return gr_slice_equal(text, address) ||
           (gr_slice_equal(text, gr_slice_str("ipc")) && is_ipc(address) && family == 0);
}

bool gr_policy_admits_address(const gr_policy *self, gr_slice address)
{
    char text[INET6_ADDRSTRLEN] = "";
    uint8_t bytes[16] = {0};
    int family = 0;
    if (address.len > 0 && address.len < sizeof(text)) {
        memcpy(text, address.data, address.len);
        family = parse_ip(text, bytes);
    }
    bool allowed = !self->any_allowed;
    for (const struct address *at = self->addresses; at != NULL; at = at->next) {
        if (!matches(at, address, family, bytes))
            continue;
        if (!at->allow)
            return false;
        allowed = true;
    }
    return allowed;
}

bool gr_policy_admits_null(const gr_policy *self)
{
    return self->null;
}

void gr_policy_hash(const gr_policy *self, gr_slice user, gr_slice password,
                    uint8_t out[GR_POLICY_HASH_LEN])
{
    crypto_generichash_state state;
    uint8_t len = (uint8_t)gr_least(user.len, GR_POLICY_NAME_MAX);
    crypto_generichash_init(&state, self->hash_key, sizeof(self->hash_key), GR_POLICY_HASH_LEN);
    crypto_generichash_update(&state, &len, sizeof(len)); /* so no part can pass for the other */
    if (len > 0)
        crypto_generichash_update(&state, user.data, len);
    if (password.len > 0)
        crypto_generichash_update(&state, password.data, password.len);
    crypto_generichash_final(&state, out, GR_POLICY_HASH_LEN);
    sodium_memzero(&state, sizeof(state));
}

enum gr_verdict gr_policy_check_plain(const gr_policy *self, gr_slice name, gr_slice password)
{
    static const uint8_t nothing[GR_POLICY_HASH_LEN];
    uint8_t tried[GR_POLICY_HASH_LEN];
    if (password.len > GR_POLICY_NAME_MAX)
        return GR_REFUSED;
    const struct user *user = find(self, name);
    bool is_there = user != NULL && user->has_password;
    bool is_slow = is_there ? user->is_slow : self->any_slow;
    gr_policy_hash(self, name, password, tried);
    bool is_right = sodium_memcmp(tried, is_there ? user->quick : nothing, sizeof(tried)) == 0;
    sodium_memzero(tried, sizeof(tried));
    if (is_slow)
        return GR_UNDECIDED;
    return is_right && is_there ? GR_ADMITTED : GR_REFUSED;
}

bool gr_policy_check_slowly(const gr_policy *self, gr_slice name, gr_slice password)
{
    const struct user *user = find(self, name);
    bool is_there = user != NULL && user->has_password && user->is_slow;
    const char *hash = is_there ? user->argon2 : self->argon2_of_nobody;
    bool is_right = crypto_pwhash_str_verify(hash, (const char *)password.data, password.len) == 0;
    return is_right && is_there;
}

bool gr_policy_admits_key(const gr_policy *self, gr_slice bytes, char z85[41], gr_slice *user)
{
    struct key *key = NULL;
    if (bytes.len != GR_POLICY_KEY_LEN)
        return false;
    HASH_FIND(hh, self->keys, bytes.data, GR_POLICY_KEY_LEN, key);
    if (key != NULL) {
        *user = gr_slice_of(key->user->name, key->user->name_len);
        return true;
    }
    if (!self->any_key || zmq_z85_encode(z85, bytes.data, bytes.len) == NULL)
        return false;
    *user = gr_slice_str(z85);
    return true;
}

bool gr_policy_knows(const gr_policy *self, gr_slice user)
{
    return find(self, user) != NULL;
}
