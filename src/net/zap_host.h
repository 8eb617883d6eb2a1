/* zap_host.h - the thread that answers ZAP requests in this process.
 *
 * It owns inproc://zeromq.zap.01, where libzmq asks about connections and brokers of this process
 * about credentials inside messages, and the sockets of ZAP services for brokers elsewhere. There
 * is one for a ZeroMQ context. All functions may be called from any thread but the host's own; they
 * wait for it, which may take as long as one password hash. */
#ifndef GR_ZAP_HOST_H
#define GR_ZAP_HOST_H

#include "engine/zap.h"
#include "net/sock.h"

typedef struct gr_zap_host gr_zap_host;

#define GR_ZAP_ADDRESS "inproc://zeromq.zap.01"

/* Starts the thread. Returns 0, GR_EADDRINUSE (this context has a ZAP handler already), GR_ENOMEM
 * or GR_EEXHAUSTED. */
int gr_zap_host_new(gr_zap_host **out, void *ctx, const gr_zap_options *options);

/* From now on nobody is let in. Before the context ends. */
void gr_zap_host_destroy(gr_zap_host **self);

/* See gr_zap_set_policy() and gr_zap_remove(). */
int gr_zap_host_set_policy(gr_zap_host *self, gr_slice domain, gr_policy **policy);
void gr_zap_host_remove(gr_zap_host *self, gr_slice domain);

/* The service at this address decides about the domain. Returns 0, GR_EADDRESS, GR_EINVAL,
 * GR_ENOMEM or GR_EEXHAUSTED. */
int gr_zap_host_set_remote(gr_zap_host *self, gr_slice domain, const char *address);

/* Serves brokers elsewhere at an address, whose wildcards are filled in in bound. Returns 0,
 * GR_EADDRINUSE, GR_EADDRESS, GR_EDENIED, GR_ENOMEM or GR_EEXHAUSTED. */
int gr_zap_host_bind(gr_zap_host *self, const char *address, char *bound, size_t bound_len);
void gr_zap_host_unbind(gr_zap_host *self, const char *bound);

void gr_zap_host_get_stats(gr_zap_host *self, gr_zap_stats *out);

#endif
