/* lines.c - what a log is measured against: lines IN OUT writes the lines of one file to another,
 * with one write(2) each, in one thread, and prints lines_per_s. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    FILE *in = argc == 3 ? fopen(argv[1], "r") : NULL;
    int out = argc == 3 ? open(argv[2], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640) : -1;
    if (in == NULL || out < 0) {
        fprintf(stderr, "usage: lines IN OUT\n");
        return 2;
    }
    fseek(in, 0, SEEK_END);
    size_t size = (size_t)ftell(in), count = 0;
    rewind(in);
    char *text = malloc(size);
    if (text == NULL || fread(text, 1, size, in) != size)
        return 1;
    clock_t cpu = clock();
    double start = now();
    for (const char *at = text, *end; at < text + size; at = end, count++) {
        end = memchr(at, '\n', (size_t)(text + size - at));
        end = end != NULL ? end + 1 : text + size;
        if (write(out, at, (size_t)(end - at)) != end - at)
            return 1;
    }
    printf("lines_per_s=%.0f cpu_ns=%.0f\n", (double)count / (now() - start),
           (double)(clock() - cpu) / CLOCKS_PER_SEC * 1e9 / (double)count);
    return 0;
}
