---Every setting, and every name that the original has: the one table that the program, docs/settings.md,
---the annotations and --print-settings are made from. `make docs` after a change.
---
---A row is one of these; settings_rows.lua checks them when they are loaded:
---
---  { NAME, type, default, text, low =, high =, ... }     a setting. Types: settings_types.lua; the default may be nil
---    low, high   bounds; a must for types with an order
---    choices     a list of the values that are allowed
---    option      { Class = "its option that comes first" }
---    follows     { OTHER, factor }: its default is so many times that setting
---    secret      never shown
---    hint        for values out of range, behind what is wrong
---    wrong       function(value), says what is wrong with it beyond its type, or nil
---    apply       function(value, values), called when the value changes; values: of all settings
---  { NAME, type, text, alias_of = NAME or { NAME, ... } }  another name, perhaps in another unit
---  { NAME, text, constant = value }                        can be read; belongs to what goes over the wire
---  { NAME, text, unused = true }                           accepted with a warning, which is the text. secret as above
---  { group = "..." }                                       a heading for the settings that follow
---@module "gaterpc.settings_table"

local log = require "gaterpc.settings_log"

return {
  { group = "Addresses and names" },
  { "FRONTEND", "address", "inproc://gaterpc.frontend",
    "where a client looks for its broker, and a broker binds for clients",
    option = { Client = "broker", Majordomo = "frontend" } },
  { "BACKEND", "address", "inproc://gaterpc.backend",
    "where a worker looks for its broker, and a broker binds for workers",
    option = { create_worker = "broker", Majordomo = "backend" } },
  { "DEFAULT_SERVICE", "service", "GateRPC", "the service of `client.method(...)`", option = { Client = "service" } },
  { "USER_SETTINGS", "string", nil, "path of a settings file; giving it reads the file" },

  { group = "Time" },
  { "TIMEOUT", "seconds", 30.0, "half of `REPLY_TIMEOUT`, when that is not set itself", low = 0, high = 43200 },
  { "REPLY_TIMEOUT", "seconds", 60.0, "how long a call, and each item of a stream, may take; 0: no limit",
    low = 0, high = 86400, follows = { "TIMEOUT", 2 }, option = { Client = "timeout" } },
  { "CONNECT_TIMEOUT", "seconds", 5.0, "calls fail when no broker has answered for so long",
    low = 0.01, high = 3600, option = { Client = "connect_timeout" } },
  { "HEARTBEAT", "seconds", 3.0, "how often a side that has nothing to say beats",
    low = 0.05, high = 60, option = { Client = "heartbeat", create_worker = "heartbeat", Majordomo = "heartbeat" },
    hint = "milliseconds go to MDP_HEARTBEAT_INTERVAL" },
  { "LIVENESS", "integer", 3, "missed beats after which the other side counts as dead",
    low = 1, high = 100, option = { Client = "liveness", create_worker = "liveness", Majordomo = "liveness" } },
  { "RECONNECT", "seconds", 0.1, "first pause before a new connection; it doubles, with jitter",
    low = 0.01, high = 60, option = { Client = "reconnect", create_worker = "reconnect" } },
  { "RECONNECT_MAX", "seconds", 2.0, "the longest such pause",
    low = 0.01, high = 600, option = { Client = "reconnect_max", create_worker = "reconnect_max" } },
  { "STREAM_IDLE", "seconds", 600.0, "a stream that nobody reads for so long is cancelled",
    low = 1, high = 86400, option = { create_worker = "stream_idle", Majordomo = "stream_idle" } },
  { "GATE_TIMEOUT", "seconds", 59.0, "calls of clients whose dialect names no deadline, and their streams, may take so "
    .. "long; the original's wait 60 s, and 0.1.x does not survive a later answer",
    low = 0.1, high = 86400, option = { Majordomo = "gate_timeout" } },
  { "GATE01_HEARTBEAT", "seconds", 3.0, "how often workers and brokers of the original 0.1.x beat",
    low = 0.05, high = 60 },
  { "GATE02_HEARTBEAT", "seconds", 5.0, "how often those of the original 0.2.x beat", low = 0.05, high = 60 },
  { "MDP_HEARTBEAT", "seconds", 2.5, "how often workers and brokers of ZeroMQ RFC 7 beat", low = 0.05, high = 60 },
  { "BUSY_LIMIT", "seconds", 1.0, "a method that does not yield for so long is named in the log; 0: never",
    low = 0, high = 3600 },

  { group = "Limits" },
  { "WORKER_CREDIT", "integer", 1024, "calls that a worker takes at once",
    low = 1, high = 65536, option = { create_worker = "credit" } },
  { "CLIENT_MAX_CALLS", "integer", 65536, "calls that a client may have under way",
    low = 1, high = 1048576, option = { Client = "max_calls" } },
  { "QUEUE_MAXSIZE", "integer", 16384, "requests that may wait for one service",
    low = 1, high = 1048576, option = { Majordomo = "queue" } },
  { "QUEUE_MAXBYTES", "bytes", 256 << 20, "bytes of all waiting requests of a broker",
    low = 1024, high = (4 << 30) - 1, option = { Majordomo = "queue_bytes" } },
  { "STREAM_REPLY_MAXSIZE", "integer", 1024, "items of a stream that nobody has read yet",
    low = 2, high = 65536, option = { Client = "window" }, hint = "there is always a limit" },
  { "STREAM_REPLY_MAXBYTES", "bytes", 1 << 20, "bytes of such items",
    low = 1024, high = 1 << 30, option = { Client = "window_bytes" } },
  { "EXECUTOR_QUEUE", "integer", 16384, "jobs that may wait for one pool of executors",
    low = 1, high = 1048576, option = { ThreadPoolExecutor = "max_queue", ProcessPoolExecutor = "max_queue" } },
  { "EXECUTOR_GRACE", "seconds", 1.0, "how long a job that was given up may take to stop, before its process is killed",
    low = 0, high = 3600, option = { ThreadPoolExecutor = "grace", ProcessPoolExecutor = "grace" } },
  { "ZMQ_HWM", "integer", 8192, "messages that may wait in ZeroMQ for one connection, in each direction",
    low = 16, high = 1048576 },

  { group = "Huge data" },
  { "HUGE_DATA_SIZEOF", "bytes", 64 << 10, "larger results, when packed, travel compressed in pieces of at most so "
    .. "many bytes", low = 1024, high = 32 << 20 },
  { "HUGE_DATA_COMPRESS_MODULE", "string", "gzip", "how: the original's programs read gzip only" },
  { "HUGE_DATA_COMPRESS_LEVEL", "integer", 1, "of gzip and zlib", low = 0, high = 9 },
  { "HUGE_DATA_MAXBYTES", "bytes", 256 << 20, "what compressed results may inflate to", low = 1024, high = 1 << 40 },

  { group = "Security" },
  { "ZAP_ADDR", "address", nil, "where a ZAPService serves brokers elsewhere; without it only those of its process",
    option = { ZAPService = "addr" } },
  { "ZAP_DEFAULT_DOMAIN", "string", "gate", "the domain of connect_zap and of a ZAPService's configure_ functions" },
  { "ZAP_REPLY_TIMEOUT", "seconds", 5.0, "how long a ZAP service elsewhere may take; then nobody is let in",
    low = 0.01, high = 60 },
  { "ZAP_CACHE", "seconds", 60.0, "how long a broker lets credentials inside messages pass that were found right",
    low = 0.01, high = 86400 },
  { "ZAP_PENALTY", "seconds", 1.0, "the longest that a refusal is held back; it doubles with each one of a source",
    low = 0, high = 5 },
  { "ZAP_PLAIN_OVER_TCP", "boolean", false,
    "PLAIN may send passwords, unencrypted, over addresses that leave this host" },

  { group = "Other" },
  { "ZMQ_IPV6", "boolean", false, "addresses may name IPv6 hosts, as `tcp://[::1]:5555`" },
  { "REMOTE_TRACEBACK", "boolean", true, "errors of methods carry the worker's traceback",
    option = { create_worker = "traceback" } },

  { group = "Log" },
  { "DEBUG", "boolean", false, "the log has debug lines, too", apply = log.level },
  { "LOG_LEVEL", "string", nil, 'the root\'s level; without it `"debug"` when DEBUG is set, else `"info"`',
    choices = { "debug", "info", "warning", "error", "off" }, apply = log.level },
  { "LOG_PATH", "string", nil, "a file that gets the log, beside standard error; or a folder, in which it has the name "
    .. "of the script: `kv.log`", wrong = log.path_problem, apply = log.outputs },
  { "LOG_FORMAT", "string", "text", "of LOG_PATH and of standard error", choices = { "text", "json" },
    apply = log.outputs },
  { "LOGGING", "table", nil,
    "what `gaterpc.log.setup` takes; its fields come before LOG_LEVEL, LOG_PATH and LOG_FORMAT",
    wrong = log.problem, apply = log.everything },

  -- Names of the original that are ours under another name or in another unit.
  { "WORKER_ADDR", "address", "where the broker binds for workers", alias_of = "BACKEND" },
  { "SERVICE_DEFAULT_NAME", "service", "the default service", alias_of = "DEFAULT_SERVICE" },
  { "MDP_HEARTBEAT_INTERVAL", "milliseconds", "how often each side beats", alias_of = "HEARTBEAT" },
  { "MDP_HEARTBEAT_LIVENESS", "integer", "missed beats after which the other side is dead", alias_of = "LIVENESS" },
  { "MDP_REPLY_TIMEOUT", "seconds", "the name of `REPLY_TIMEOUT` in 0.1.1", alias_of = "REPLY_TIMEOUT" },
  { "MESSAGE_MAX", "integer", "what a worker, and a client, may have under way",
    alias_of = { "WORKER_CREDIT", "CLIENT_MAX_CALLS" } },
  { "ZMQ_SOCK_HWM", "integer", "ZeroMQ's high water mark", alias_of = "ZMQ_HWM" },
  { "ZMQ_CONTEXT_IPV6", "flag", "whether sockets know IPv6", alias_of = "ZMQ_IPV6" },

  -- What the original's programs say to each other. Their peers compare these byte for byte.
  { "MDP_VERSION", "version of the Majordomo protocol", constant = "01" },
  { "MDP_CLIENT", "how a client's messages begin", constant = "MDPC01" },
  { "MDP_WORKER", "how a worker's messages begin", constant = "MDPW01" },
  { "MDP_COMMAND_READY", "a worker's command", constant = "\x01" },
  { "MDP_COMMAND_REQUEST", "a broker's command", constant = "\x02" },
  { "MDP_COMMAND_REPLY", "a worker's command", constant = "\x03" },
  { "MDP_COMMAND_HEARTBEAT", "a command of both", constant = "\x04" },
  { "MDP_COMMAND_DISCONNECT", "a command of both", constant = "\x05" },
  { "MDP_DESCRIPTION_SEP", "between name and description in READY", constant = ":" },
  { "MDP_INTERNAL_SERVICE", "the service of the broker itself", constant = "Gate" },
  { "STREAM_GENERATOR_TAG", "marks an item of a stream", constant = "GateStreamGenerator" },
  { "STREAM_EXCEPT_TAG", "marks the error that ends a stream", constant = "GateStreamException" },
  { "STREAM_END_TAG", "the end of a stream", constant = "GateStreamEnd" },
  { "STREAM_END_MESSAGE", "the name of `STREAM_END_TAG` in early versions", constant = "GateStreamEnd" },
  { "STREAM_HUGE_DATA_TAG", "marks a piece of compressed data; spelled like that", constant = "GateStreamHugData" },
  { "HUGE_DATA_END_TAG", "the end of compressed data", constant = "HugeDataEND" },
  { "HUGE_DATA_EXCEPT_TAG", "marks the error that ends compressed data", constant = "HugeDataException" },
  { "ZAP_VERSION", "version of ZeroMQ's authentication protocol", constant = "1.0" },
  { "ZAP_MECHANISM_NULL", "a mechanism of authentication", constant = "NULL" },
  { "ZAP_MECHANISM_PLAIN", "a mechanism of authentication", constant = "PLAIN" },
  { "ZAP_MECHANISM_CURVE", "a mechanism of authentication", constant = "CURVE" },
  { "ZAP_MECHANISM_GSSAPI", "a mechanism of authentication", constant = "GSSAPI" },
  { "GATE_VERSION", "version of the protocol between brokers of a cluster", constant = "01" },
  { "GATE_MEMBER", "how messages between them begin", constant = "GATE01" },
  { "GATE_COMMAND_NOTICE", "a command between brokers", constant = "\x00" },
  { "GATE_COMMAND_INVITE", "a command between brokers", constant = "\x01" },
  { "GATE_COMMAND_JOIN", "a command between brokers", constant = "\x02" },
  { "GATE_COMMAND_WHISPER", "a command between brokers", constant = "\x03" },
  { "GATE_COMMAND_HEARTBEAT", "a command between brokers", constant = "\x04" },
  { "GATE_COMMAND_LEAVE", "a command between brokers", constant = "\x05" },
  { "GATE_COMMAND_RING", "a command between brokers, in 0.1", constant = "\x00" },
  { "GATE_COMMAND_READY", "a command between brokers, in 0.1", constant = "\x01" },
  { "GATE_COMMAND_REQUEST", "a command between brokers, in 0.1", constant = "\x02" },
  { "GATE_COMMAND_REPLY", "a command between brokers, in 0.1", constant = "\x03" },
  { "GATE_COMMAND_DISCONNECT", "a command between brokers, in 0.1", constant = "\x05" },

  -- Names of the original that change nothing here.
  { "EVENT_LOOP_POLICY", "the host has one loop, libuv's", unused = true },
  { "ENVIRONMENT", "set the environment before the host starts", unused = true },
  { "WINDOWS_MAX_WORKERS", "the host runs on Linux only", unused = true },
  { "BASE_PATH", "nothing is written there: addresses and files are given whole", unused = true },
  { "RUN_PATH", "nothing is written there: give ipc addresses whole, as in BACKEND", unused = true },
  { "DEFAULT_LOGGING", "LOGGING changes what is to be changed; docs/logging.md has the defaults", unused = true },
  { "SECURE", "an unknown method is always answered with NOT_FOUND", unused = true },
  { "CLIENT_TIMEOUT", "REPLY_TIMEOUT bounds a call", unused = true },
  { "TASK_TIMEOUT", "a method has the time that its caller gives it: REPLY_TIMEOUT there", unused = true },
  { "MDP_INTERNAL_SERVICE_PREFIX", "methods of the broker itself belong to the service Gate and have no prefix",
    unused = true },
  { "ZMQ_CONTEXT", "sockets have the options that they need; see ZMQ_HWM and ZMQ_IPV6", unused = true },
  { "ZMQ_SOCK", "sockets have the options that they need; see ZMQ_HWM and ZMQ_IPV6", unused = true },
  { "ZMQ_SOCK_SNDTIMEO", "nothing waits in a socket; REPLY_TIMEOUT bounds a call", unused = true },
  { "ZMQ_SOCK_RCVTIMEO", "nothing waits in a socket; REPLY_TIMEOUT bounds a call", unused = true },
  { "ZAP_INPROC_ADDR", "brokers of this process ask without an address", unused = true },
  { "ZAP_PLAIN_DEFAULT_USER", "there is no default user or password", unused = true },
  { "ZAP_PLAIN_DEFAULT_PASSWORD", "there is no default user or password", unused = true, secret = true },
  { "GATE_CLUSTER_NAME", "brokers form no clusters", unused = true },
  { "GATE_CLUSTER_DESCRIPTION", "brokers form no clusters", unused = true },
  { "GATE_IP_VERSION", "brokers form no clusters", unused = true },
  { "GATE_MULTICAST_GROUP", "brokers form no clusters", unused = true },
  { "GATE_MULTICAST_PORT", "brokers form no clusters", unused = true },
  { "GATE_MULTICAST_TTL", "brokers form no clusters", unused = true },
  { "GATE_MULTICAST_HOP_LIMIT", "brokers form no clusters", unused = true },
  { "GATE_CURVE_PUBKEY", "brokers form no clusters", unused = true },
  { "GATE_CURVE_KEY", "brokers form no clusters", unused = true, secret = true },
}
