std = "lua54"
max_line_length = 120
self = false
exclude_files = { "build*/**" }
files["spec"] = { std = "+busted" }
files["lua/gaterpc/meta"] = { ignore = { "1", "2", "3", "212" } }
files["lua/gaterpc/task.lua"] = { globals = { "coroutine" } }
files["lua/gaterpc/host.lua"] = { globals = { "arg" } }
files["lua/gaterpc/meta/settings.lua"] = { max_line_length = false }
files["examples/settings_file.lua"] = { allow_defined = true, ignore = { "131" } } -- its globals are the settings
