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
    bool any_allowed; /* an address */
    /* One of the users', or empty: a check of anybody is to cost what it costs for these. */
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
    /* Brokers get it from ZeroMQ as a C string, so a zero would make another one of it. */
    if (name.len == 0 || name.len > GR_POLICY_NAME_MAX || memchr(name.data, '\0', name.len) != NULL)
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

static bool is_slow(const gr_policy *self)
{
    return self->argon2_of_nobody[0] != '\0';
}

static bool is_argon2(gr_slice secret)
{
    static const char prefix[] = "$argon2";
    return secret.len >= sizeof(prefix) - 1 && memcmp(secret.data, prefix, sizeof(prefix) - 1) == 0;
}

/* Returns 0 or GR_EINVAL. */
static int read_argon2(gr_slice hash, char out[crypto_pwhash_STRBYTES])
{
    memset(out, 0, crypto_pwhash_STRBYTES);
    if (hash.len >= crypto_pwhash_STRBYTES || memchr(hash.data, '\0', hash.len) != NULL)
        return GR_EINVAL;
    memcpy(out, hash.data, hash.len);
    return crypto_pwhash_str_needs_rehash(out, crypto_pwhash_OPSLIMIT_INTERACTIVE,
                                          crypto_pwhash_MEMLIMIT_INTERACTIVE) < 0
               ? GR_EINVAL
               : 0;
}

int gr_policy_add_user(gr_policy *self, gr_slice name, gr_slice secret)
{
    struct user *user;
    char argon2[crypto_pwhash_STRBYTES];
    bool slow = is_argon2(secret);
    if (secret.len == 0 || secret.len > GR_POLICY_NAME_MAX ||
        (slow && read_argon2(secret, argon2) < 0))
        return GR_EINVAL;
    int rc = find_or_add(self, name, &user);
    if (rc < 0)
        return rc;
    user->has_password = true;
    user->is_slow = slow;
    if (!slow) {
        gr_policy_hash(self, name, secret, user->quick);
        return 0;
    }
    memcpy(user->argon2, argon2, sizeof(argon2));
    if (!is_slow(self))
        memcpy(self->argon2_of_nobody, argon2, sizeof(argon2));
    return 0;
}

int gr_policy_add_key(gr_policy *self, gr_slice name, const uint8_t bytes[GR_POLICY_KEY_LEN])
{
    struct user *user;
    struct key *key;
    HASH_FIND(hh, self->keys, bytes, GR_POLICY_KEY_LEN, key);
    if (key != NULL)
        return key->user == find(self, name) ? 0 : GR_EINVAL;
    int rc = find_or_add(self, name, &user);
    if (rc < 0)
        return rc;
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

enum { MAPPED_BITS = 96 }; /* in front of an IPv4 address that comes as an IPv6 one */

/* Returns the family, 0 when it is no IP address. An IPv4 address may come as an IPv6 one, and a
 * link-local one with the name of an interface. */
static int parse_ip(gr_slice address, uint8_t bytes[16])
{
    static const uint8_t mapped[MAPPED_BITS / 8] = {[10] = 0xff, [11] = 0xff};
    char text[INET6_ADDRSTRLEN] = "";
    const uint8_t *scope = address.len > 0 ? memchr(address.data, '%', address.len) : NULL;
    size_t len = scope != NULL ? (size_t)(scope - address.data) : address.len;
    if (len == 0 || len >= sizeof(text) || memchr(address.data, '\0', address.len) != NULL)
        return 0;
    memcpy(text, address.data, len);
    if (scope == NULL && inet_pton(AF_INET, text, bytes) == 1)
        return AF_INET;
    if (inet_pton(AF_INET6, text, bytes) != 1)
        return 0;
    if (memcmp(bytes, mapped, sizeof(mapped)) != 0)
        return AF_INET6;
    memmove(bytes, bytes + sizeof(mapped), 4);
    return AF_INET;
}

/* Something that was meant for one would never match, and a denied address be let in. */
static bool looks_like_address(gr_slice text)
{
    size_t marks = 0, other = 0;
    for (size_t i = 0; i < text.len; i++) {
        marks += strchr(".:*/%", text.data[i]) != NULL && text.data[i] != '\0';
        other += strchr("0123456789abcdefABCDEF.:*/%[]", text.data[i]) == NULL;
    }
    return gr_slice_equal(text, gr_slice_str("localhost")) ||
           gr_slice_equal(text, gr_slice_str("*")) || (marks > 0 && other == 0) ||
           memmem(text.data, text.len, "://", 3) != NULL;
}

static int read_bits(gr_slice digits, unsigned most, unsigned *out)
{
    unsigned bits = 0;
    if (digits.len == 0 || digits.len > 3)
        return GR_EINVAL;
    for (size_t i = 0; i < digits.len; i++) {
        if (digits.data[i] < '0' || digits.data[i] > '9')
            return GR_EINVAL;
        bits = 10 * bits + (digits.data[i] - '0');
    }
    *out = bits;
    return bits <= most ? 0 : GR_EINVAL;
}

/* Fills in an address with the length of its prefix; anything else stays text. */
static int read_pattern(struct address *self)
{
    gr_slice text = gr_slice_of(self->text, self->text_len);
    const uint8_t *slash = memchr(text.data, '/', text.len);
    gr_slice ip = gr_slice_first(text, slash != NULL ? (size_t)(slash - text.data) : text.len);
    self->family = parse_ip(ip, self->bytes);
    if (self->family == 0 || memchr(ip.data, '%', ip.len) != NULL)
        return self->family != 0 || looks_like_address(text) ? GR_EINVAL : 0;
    bool is_mapped = self->family == AF_INET && memchr(ip.data, ':', ip.len) != NULL;
    unsigned most = self->family == AF_INET && !is_mapped ? 32 : 128;
    self->bits = most;
    int rc = slash != NULL
                 ? read_bits(gr_slice_of(slash + 1, text.len - ip.len - 1), most, &self->bits)
                 : 0;
    if (rc < 0 || !is_mapped)
        return rc;
    if (self->bits < MAPPED_BITS) /* others than IPv4 addresses as well */
        return GR_EINVAL;
    self->bits -= MAPPED_BITS;
    return 0;
}

int gr_policy_add_address(gr_policy *self, gr_slice address, bool allow)
{
    if (address.len == 0 || address.len > GR_POLICY_NAME_MAX)
        return GR_EINVAL;
    struct address *added = calloc(1, sizeof(*added) + address.len);
    if (added == NULL)
        return GR_ENOMEM;
    memcpy(added->text, address.data, address.len);
    added->text_len = address.len;
    added->allow = allow;
    int rc = read_pattern(added);
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

bool gr_policy_is_ipc(gr_slice address, gr_slice *user_id)
{
    static const char host[] = "localhost"; /* what getnameinfo() makes of a local socket */
    size_t at = 0;
    if (gr_slice_equal(gr_slice_first(address, sizeof(host) - 1), gr_slice_str(host)))
        at = sizeof(host) - 1;
    gr_slice parts = gr_slice_skip(address, at);
    size_t marks = 0, first = 0;
    for (size_t i = 0; i < parts.len; i++) {
        if (parts.data[i] == ':' && ++marks == 2)
            first = i;
        else if (parts.data[i] != ':' && (parts.data[i] < '0' || parts.data[i] > '9'))
            return false;
    }
    *user_id = gr_slice_first(address, at + first);
    return marks == 3 && parts.data[0] == ':';
}

static bool matches(const struct address *self, gr_slice address, int family,
                    const uint8_t bytes[16])
{
    gr_slice text = gr_slice_of(self->text, self->text_len), user_id;
    if (self->family != 0)
        return self->family == family && has_prefix(self->bytes, bytes, self->bits);
    return gr_slice_equal(text, address) || (gr_slice_equal(text, gr_slice_str("ipc")) &&
                                             family == 0 && gr_policy_is_ipc(address, &user_id));
}

bool gr_policy_admits_address(const gr_policy *self, gr_slice address)
{
    uint8_t bytes[16] = {0};
    int family = parse_ip(address, bytes);
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
    gr_policy_hash(self, name, password, tried);
    bool is_right = sodium_memcmp(tried, is_there ? user->quick : nothing, sizeof(tried)) == 0;
    sodium_memzero(tried, sizeof(tried));
    if (is_right && is_there && !user->is_slow)
        return GR_ADMITTED;
    return is_slow(self) ? GR_UNDECIDED : GR_REFUSED;
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
    uint8_t key[GR_POLICY_KEY_LEN];
    char z85[41] = "";
    if (find(self, user) != NULL)
        return true;
    if (!self->any_key || user.len != sizeof(z85) - 1 || memchr(user.data, '\0', user.len) != NULL)
        return false;
    memcpy(z85, user.data, user.len);
    return zmq_z85_decode(key, z85) != NULL;
}
