#include "host/keys.h"

#include <string.h>
#include <termios.h>
#include <wchar.h>

enum {
    ESCAPE = 0x1b,
    LONGEST = 64 /* an escape sequence that is longer is not one */
};

static const struct {
    const char *keys, *command;
} sequences[] = {
    {"\033[A", "ed-prev-history"},      {"\033OA", "ed-prev-history"},
    {"\033[B", "ed-next-history"},      {"\033OB", "ed-next-history"},
    {"\033[C", "ed-next-char"},         {"\033OC", "ed-next-char"},
    {"\033[D", "ed-prev-char"},         {"\033OD", "ed-prev-char"},
    {"\033[H", "ed-move-to-beg"},       {"\033OH", "ed-move-to-beg"},
    {"\033[F", "ed-move-to-end"},       {"\033OF", "ed-move-to-end"},
    {"\033[1~", "ed-move-to-beg"},      {"\033[7~", "ed-move-to-beg"},
    {"\033[4~", "ed-move-to-end"},      {"\033[8~", "ed-move-to-end"},
    {"\033[1;5C", "em-next-word"},      {"\033[1;3C", "em-next-word"},
    {"\033[1;5D", "ed-prev-word"},      {"\033[1;3D", "ed-prev-word"},
    {"\033[3~", "ed-delete-next-char"},
};

static size_t sequence_length(const char *text, size_t len)
{
    size_t at = 1;
    if (at < len && text[at] == '[') /* function keys of the Linux console: ESC [ [ A */
        at++;
    for (; at < len; at++) {
        if ((unsigned char)text[at] >= 0x40 && (unsigned char)text[at] < 0x7f)
            return at + 1;
    }
    return 0;
}

static size_t character_length(const char *text, size_t len)
{
    if (len == 0)
        return 0;
    mbstate_t state = {0};
    wchar_t c;
    size_t n = mbrtowc(&c, text, len, &state);
    if (n == (size_t)-2)
        return 0;
    return n == 0 || n == (size_t)-1 ? 1 : n;
}

static size_t with_first(size_t rest)
{
    return rest > 0 ? rest + 1 : 0;
}

static size_t measure(const char *text, size_t len)
{
    if (len == 0)
        return 0;
    if (text[0] == CTRL('X') || text[0] == CTRL('V'))
        return with_first(character_length(text + 1, len - 1));
    if (text[0] != ESCAPE)
        return character_length(text, len);
    if (len > 1 && text[1] == '[')
        return with_first(sequence_length(text + 1, len - 1));
    if (len > 1 && text[1] == 'O')
        return len > 2 ? 3 : 0;
    if (len > 1 && text[1] == ESCAPE) /* some terminals send Alt and an arrow so */
        return with_first(measure(text + 1, len - 1));
    return with_first(character_length(text + 1, len - 1));
}

size_t gr_key_length(const char *text, size_t len)
{
    if (len < LONGEST)
        return measure(text, len);
    size_t n = measure(text, LONGEST);
    return n > 0 ? n : LONGEST; /* nothing that we shall see the end of */
}

bool gr_key_is_known(const char *key, size_t len)
{
    if (key[0] != ESCAPE || len <= 2)
        return true;
    for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++)
        if (strlen(sequences[i].keys) == len && memcmp(sequences[i].keys, key, len) == 0)
            return true;
    return false;
}

void gr_keys_bind(EditLine *el)
{
    for (size_t i = 0; i < sizeof(sequences) / sizeof(sequences[0]); i++)
        el_set(el, EL_BIND, sequences[i].keys, sequences[i].command, NULL);
    el_set(el, EL_BIND, "^R", "ed-search-prev-history", NULL);
    el_set(el, EL_BIND, "\\ex", "ed-unassigned", NULL); /* a command line of libedit's own, */
    el_set(el, EL_BIND, "\\eX", "ed-unassigned", NULL); /* which reads keys by itself */
}
