# make help tells what there is.
PREFIX  ?= /usr/local
DESTDIR ?=

comma   := ,
BUILD   := build$(addprefix -,$(subst $(comma),-,$(SANITIZE)))
HOST    := $(BUILD)/gaterpc-host

pkgs    := lua5.4-luv lua5.4 libuv libzmq msgpack libedit
cflags  := -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes \
           -Wmissing-prototypes -fno-strict-aliasing -Isrc -MMD -MP \
           -isystem /usr/include/lua5.4 $(filter-out -I/usr/include/lua5.4,$(shell pkg-config --cflags $(pkgs)))
ldflags := -Wl,--as-needed
libs    := $(shell pkg-config --libs $(pkgs)) -lpthread

ifneq ($(SANITIZE),)
cflags  += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1
ldflags += -fsanitize=$(SANITIZE)
else
cflags  += -flto=auto
ldflags += -flto=auto -O2
endif

sources := $(wildcard src/*/*.c)
objects := $(sources:src/%.c=$(BUILD)/%.o)

all: $(HOST) ## build the host (SANITIZE=address,undefined or thread: into a tree of its own)

$(HOST): $(objects)
	$(CC) $(ldflags) $(CFLAGS) -o $@ $^ $(libs)

$(BUILD)/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(cflags) $(CFLAGS) -c -o $@ $<

-include $(objects:.o=.d)

# --- spec modules: the engines for specs, and the fuzzers. Specs need $(engine_module).
engine_module  := $(BUILD)/spec/engine.so
engine_sources := $(wildcard src/base/*.c src/wire/*.c src/engine/*.c) spec/support/engine.c
engine_objects := $(engine_sources:%.c=$(BUILD)/spec/%.o)

all: $(engine_module)

$(engine_module): $(engine_objects)
	$(CC) $(filter-out -flto%,$(ldflags)) -shared -o $@ $^ $(libs)

$(BUILD)/spec/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(filter-out -flto%,$(cflags)) $(CFLAGS) -fPIC -c -o $@ $<

fuzzers      := $(patsubst spec/fuzz/fuzz_%.c,%,$(wildcard spec/fuzz/fuzz_*.c))
fuzz_sources := $(wildcard src/base/*.c src/wire/*.c src/engine/*.c src/bind/bind_msgpack*.c)
fuzz_objects := $(fuzz_sources:%.c=build-fuzz/%.o)
fuzz_cflags  := $(filter-out -flto% -fsanitize%,$(cflags)) -O1 -fno-omit-frame-pointer \
                -fsanitize=address,undefined -fno-sanitize-recover=all
TARGET       ?= $(fuzzers)
SECONDS      ?= 60

fuzz: $(TARGET:%=build-fuzz/fuzz_%) ## fuzz the parsers and engines: [TARGET=broker] [SECONDS=60]
	@set -e; for name in $(TARGET); do mkdir -p build-fuzz/new/$$name; echo "--- fuzz_$$name"; \
	build-fuzz/fuzz_$$name -max_total_time=$(SECONDS) -timeout=10 -max_len=4096 -verbosity=0 -print_final_stats=1 \
	-artifact_prefix=build-fuzz/$$name- build-fuzz/new/$$name spec/fuzz/corpus/$$name; done

build-fuzz/fuzz_%: build-fuzz/spec/fuzz/fuzz_%.o $(fuzz_objects)
	clang $(fuzz_cflags) -fsanitize=fuzzer -o $@ $^ $(libs)

build-fuzz/%.o: %.c
	@mkdir -p $(@D)
	clang $(fuzz_cflags) -fsanitize=fuzzer-no-link -c -o $@ $<

.PRECIOUS: build-fuzz/%.o
-include $(engine_objects:.o=.d) $(fuzz_objects:.o=.d) $(fuzzers:%=build-fuzz/spec/fuzz/fuzz_%.d)
# --- end of spec modules

clean: ## remove everything that was built
	rm -rf build build-*

.PHONY: all clean fuzz
