-- Settings for examples/settings.lua: a settings file is Lua text, and its globals are the settings.
local minute = 60

HEARTBEAT = 0.5
STREAM_IDLE = 2 * minute
QUEUE_MAXBYTES = "64M"
WORKER_CREDIT = WORKER_CREDIT // 4
DEFAULT_SERVICE = os.getenv "SERVICE" or "Clock"
