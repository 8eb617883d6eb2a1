/* main.c - gaterpc-host: arguments in, exit code out. */
#include <lualib.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "host/inside.h"
#include "host/state.h"
#include "host/terminal.h"

#define VERSION "gaterpc-host 0.1.0"

static const char usage[] =
    "usage: gaterpc-host [options] [script [args]]\n"
    "  -e stat   run the statement 'stat'\n"
    "  -i        enter the prompt after the script\n"
    "  -l mod    require module 'mod' into global 'mod'\n"
    "  -l g=mod  require module 'mod' into global 'g'\n"
    "  -I dir    look for modules in 'dir' first\n"
    "  -v        show the version\n"
    "  -E        ignore environment variables\n"
    "  -W        turn warnings on\n"
    "  --settings FILE    read settings from FILE, see docs/settings.md\n"
    "  --print-settings   print the settings that a script would start with, and end\n"
    "  --keygen PATH      make a pair of CURVE keys, PATH and PATH_secret, and end\n"
    "  --        end of options\n"
    "  -         run standard input, and end of options\n"
    "Without a script, a terminal gets the prompt and a pipe is run as statements.\n";

/* What the command line asks for. Actions are -e, -l and -I in their order. */
struct request {
    bool interactive, version, ignore_environment, warnings, print_settings;
    const char *settings; /* a file, or NULL */
    const char *keygen;   /* likewise, to be made */
    int script;           /* index of the script in argv, or argc */
    struct {
        char kind;
        const char *text;
    } actions[64];
    int action_count;
};

static int complain(const char *what, const char *detail)
{
    fprintf(stderr, "gaterpc-host: %s '%s'\n%s", what, detail, usage);
    return 2;
}

static int add_action(struct request *request, int argc, char **argv, int *i)
{
    char kind = argv[*i][1];
    const char *text = argv[*i] + 2;
    if (*text == '\0') {
        if (*i + 1 >= argc)
            return complain("an argument is missing after", argv[*i]);
        text = argv[++*i];
    }
    int count = request->action_count;
    if (count == (int)(sizeof(request->actions) / sizeof(request->actions[0])))
        return complain("too many options, at", argv[*i]);
    request->actions[count].kind = kind;
    request->actions[count].text = text;
    request->action_count++;
    return 0;
}

/* True when it is the option `name`, as --name FILE or --name=FILE; *file is empty when there is
 * none.
 */
static bool is_file_option(const char *name, int argc, char **argv, int *i, const char **file)
{
    const char *option = argv[*i];
    size_t len = strlen(name);
    if (strncmp(option, name, len) != 0 || (option[len] != '\0' && option[len] != '='))
        return false;
    *file = option[len] == '=' ? option + len + 1 : *i + 1 < argc ? argv[++*i] : "";
    return true;
}

/* --settings FILE, --print-settings, --keygen PATH. */
static int add_long(struct request *request, int argc, char **argv, int *i)
{
    const char *option = argv[*i], *file;
    if (strcmp(option, "--print-settings") == 0) {
        request->print_settings = true;
        return 0;
    }
    bool is_settings = is_file_option("--settings", argc, argv, i, &file);
    if (!is_settings && !is_file_option("--keygen", argc, argv, i, &file))
        return complain("unknown option", option);
    if (*file == '\0')
        return complain("an argument is missing after", is_settings ? "--settings" : "--keygen");
    const char **place = is_settings ? &request->settings : &request->keygen;
    if (*place != NULL)
        return complain(is_settings ? "there can be one settings file, got also"
                                    : "keys are made one pair at a time, got also",
                        file);
    *place = file;
    return 0;
}

/* Returns 0, or the exit code when the command line is wrong. */
static int parse(struct request *request, int argc, char **argv)
{
    int i = 1;
    for (; i < argc && argv[i][0] == '-' && argv[i][1] != '\0'; i++) {
        const char *option = argv[i];
        if (strcmp(option, "--") == 0) {
            i++;
            break;
        }
        if (option[1] == '-') {
            int rc = add_long(request, argc, argv, &i);
            if (rc != 0)
                return rc;
        } else if (strchr("elI", option[1]) != NULL) {
            int rc = add_action(request, argc, argv, &i);
            if (rc != 0)
                return rc;
        } else if (option[2] != '\0' || strchr("ivEW", option[1]) == NULL) {
            return complain("unknown option", option);
        } else if (option[1] == 'i') {
            request->interactive = true;
        } else if (option[1] == 'v') {
            request->version = true;
        } else if (option[1] == 'E') {
            request->ignore_environment = true;
        } else {
            request->warnings = true;
        }
    }
    request->script = i;
    return 0;
}

/* --- signals ----------------------------------------------------------------------------- */

static struct {
    gr_state *state;
    uv_async_t async;
    volatile sig_atomic_t pending[3]; /* by place in the list below */
    volatile sig_atomic_t asked;      /* how often the end was asked for */
    volatile sig_atomic_t interactive;
    volatile sig_atomic_t ending; /* the loop is there no more */
} signals;

static const int signal_list[3] = {SIGINT, SIGTERM, SIGHUP};

/* At the prompt Ctrl-C stops what runs there; else SIGINT and SIGTERM ask for an end, and the
 * second one has it at once. */
static void on_signal(int number)
{
    for (int i = 0; i < 3; i++)
        if (signal_list[i] == number)
            signals.pending[i] = 1;
    if (signals.interactive && number != SIGTERM) {
        gr_state_interrupt(); /* SIGHUP: the terminal has gone, and a line may run for ever */
    } else if (number != SIGHUP && signals.asked++ > 0) {
        gr_terminal_restore();
        gr_log_rescue(0);
        _exit(128 + number);
    }
    if (number == SIGHUP)
        gr_log_reopen();
    if (!signals.ending)
        uv_async_send(&signals.async);
}

static void deliver(uv_async_t *async)
{
    static const char *const names[3] = {"sigint", "sigterm", "sighup"};
    gr_state *state = signals.state;
    (void)async;
    for (int i = 0; i < 3; i++) {
        if (!signals.pending[i])
            continue;
        signals.pending[i] = 0;
        if (signal_list[i] == SIGINT && signals.interactive && !gr_state_take_interrupt())
            continue; /* it has stopped a function that ran */
        gr_loop_enter(state->loop);
        if (!gr_state_push_dispatcher(state))
            continue;
        lua_pushliteral(state->L, "signal");
        lua_pushstring(state->L, names[i]);
        gr_state_call(state->L, 2, 0);
    }
}

static void catch_signals(gr_state *state, bool interactive)
{
    signals.state = state;
    signals.interactive = interactive;
    uv_async_init(gr_loop_uv(state->loop), &signals.async, deliver);
    uv_unref((uv_handle_t *)&signals.async);
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (int i = 0; i < 3; i++)
        sigaction(signal_list[i], &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

/* The host ends, which may take seconds: it need not be asked for that, but may be hurried. */
static void begin_end(void)
{
    signals.ending = true;
    signals.interactive = false;
}

/* --- running ----------------------------------------------------------------------------- */

/* The global `arg`: the script at 0, its arguments after it, the rest before it. [-0, +0] */
static void set_arg(lua_State *L, int argc, char **argv, int script)
{
    lua_createtable(L, argc, 1);
    for (int i = 0; i < argc; i++) {
        lua_pushstring(L, argv[i]);
        lua_rawseti(L, -2, i - script);
    }
    lua_setglobal(L, "arg");
}

/* [-0, +1] What gaterpc.host shall do. */
static void push_request(lua_State *L, const struct request *request, int argc, bool interactive)
{
    lua_newtable(L);
    lua_createtable(L, request->action_count, 0);
    for (int i = 0; i < request->action_count; i++) {
        lua_createtable(L, 0, 2);
        lua_pushlstring(L, &request->actions[i].kind, 1);
        lua_setfield(L, -2, "kind");
        lua_pushstring(L, request->actions[i].text);
        lua_setfield(L, -2, "text");
        lua_rawseti(L, -2, i + 1);
    }
    lua_setfield(L, -2, "actions");
    lua_pushboolean(L, request->script < argc);
    lua_setfield(L, -2, "script");
    lua_pushboolean(L, interactive);
    lua_setfield(L, -2, "interactive");
    lua_pushboolean(L, request->version);
    lua_setfield(L, -2, "version");
    lua_pushboolean(L, !request->ignore_environment);
    lua_setfield(L, -2, "environment");
    lua_pushboolean(L, request->print_settings);
    lua_setfield(L, -2, "print_settings");
    lua_pushstring(L, request->settings); /* nil when there is none */
    lua_setfield(L, -2, "settings");
    lua_pushstring(L, request->keygen);
    lua_setfield(L, -2, "keygen");
}

static int run(gr_state *state, const struct request *request, int argc, char **argv)
{
    lua_State *L = state->L;
    bool bare = request->script >= argc && request->action_count == 0 && !request->version;
    bool interactive = (request->interactive || (bare && isatty(STDIN_FILENO))) &&
                       !request->print_settings && request->keygen == NULL;
    catch_signals(state, interactive);
    if (interactive)
        gr_state_allow_interrupts(state);
    set_arg(L, argc, argv, request->script < argc ? request->script : 0);
    if (request->warnings)
        lua_warning(L, "@on", 0);
    lua_getglobal(L, "require");
    lua_pushliteral(L, "gaterpc.host");
    gr_loop_enter(state->loop);
    if (gr_state_call(L, 1, 0) < 0 || !gr_state_push_dispatcher(state))
        return 1;
    lua_pushliteral(L, "start");
    push_request(L, request, argc, interactive);
    if (gr_state_call(L, 2, 0) < 0)
        return 1;
    while (!state->exiting && gr_loop_turn(state->loop))
        continue;
    if (state->exiting)
        return state->exit_code;
    if (!gr_state_push_dispatcher(state))
        return 1;
    lua_pushliteral(L, "idle"); /* nothing can happen any more */
    gr_state_call(L, 1, 0);
    return state->exit_code;
}

/* Many connections need many descriptors: take what the system lets us have. */
static void raise_descriptor_limit(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
        limit.rlim_cur = limit.rlim_max < 65536 ? limit.rlim_max : 65536;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--executor") == 0)
        return gr_executor_serve(gr_inside_run);
    struct request request = {0};
    int rc = parse(&request, argc, argv);
    if (rc != 0)
        return rc;
    if (request.version)
        printf("%s  (Lua 5.4, %s)\n", VERSION, LUA_RELEASE);
    raise_descriptor_limit();
    gr_log_start(STDERR_FILENO);
    gr_log_catch_crashes(gr_terminal_restore);
    gr_state *state;
    if (gr_state_new(&state, !request.ignore_environment) < 0) {
        fprintf(stderr, "gaterpc-host: cannot start: out of memory or descriptors\n");
        return 1;
    }
    int code = run(state, &request, argc, argv);
    begin_end();
    fflush(stdout);
    gr_state_destroy(&state);
    gr_log_stop();
    return code;
}
