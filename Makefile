# make help tells what there is.
PREFIX  ?= /usr/local
DESTDIR ?=

comma   := ,
BUILD   := build$(addprefix -,$(subst $(comma),-,$(SANITIZE)))
HOST    := $(BUILD)/gaterpc-host

pkgs    := lua5.4-luv lua5.4 libuv libzmq msgpack libedit zlib libzstd liblz4 liblzma libxxhash libsodium
cflags  := -std=c11 -D_GNU_SOURCE -O2 -g -Wall -Wextra -Wshadow -Wvla -Wstrict-prototypes \
           -Wmissing-prototypes -fno-strict-aliasing -Isrc -MMD -MP \
           -isystem /usr/include/lua5.4 $(filter-out -I/usr/include/lua5.4,$(shell pkg-config --cflags $(pkgs)))
ldflags := -Wl,--as-needed
libs    := $(shell pkg-config --libs $(pkgs)) -lbz2 -lpthread

ifneq ($(SANITIZE),)
cflags  += -fsanitize=$(SANITIZE) -fno-sanitize-recover=all -fno-omit-frame-pointer -O1
ldflags += -fsanitize=$(SANITIZE)
else
cflags  += -flto=auto
ldflags += -flto=auto -O2
endif

sources := $(wildcard src/*/*.c)
objects := $(sources:src/%.c=$(BUILD)/%.o)

all: host ## build everything (SANITIZE=address,undefined or thread: in a tree of its own)
host: $(HOST) ## build the host only

$(HOST): $(objects)
	$(CC) $(ldflags) $(CFLAGS) -o $@ $^ $(libs)

$(BUILD)/%.o: src/%.c
	@mkdir -p $(@D)
	$(CC) $(cflags) $(CFLAGS) -c -o $@ $<

-include $(objects:.o=.d)

# --- what specs need beside the host: modules, each of parts of the core and the C file of specs that shows
# them to Lua, and programs.
define spec_module
$(1)_objects := $$(patsubst %.c,$$(BUILD)/spec/%.o,$$(wildcard $$(addprefix src/,$(3))) spec/support/$(2).c)
spec_objects += $$($(1)_objects)
spec_parts   += $$(BUILD)/spec/$(1).so

$$(BUILD)/spec/$(1).so: $$($(1)_objects)
	$$(CC) $$(filter-out -flto%,$$(ldflags)) -shared -o $$@ $$^ $$(libs)
endef

$(eval $(call spec_module,engine,engine,base/*.c wire/*.c engine/*.c))
$(eval $(call spec_module,zapspec,zap,base/*.c wire/*.c engine/*.c))
$(eval $(call spec_module,socks,sock,base/*.c wire/*.c net/sock.c))
$(eval $(call spec_module,logspec,log,base/*.c bind/bind.c bind/bind_log*.c bind/bind_msgpack*.c))

programs   := $(BUILD)/spec/spam $(BUILD)/spec/knock
spec_parts += $(programs)

$(programs): $(BUILD)/spec/%: spec/support/%.c
	@mkdir -p $(@D)
	$(CC) $(filter-out -flto% -MMD -MP,$(cflags)) $(filter-out -flto%,$(ldflags)) -o $@ $< $(libs)

all: $(spec_parts)

$(BUILD)/spec/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(filter-out -flto%,$(cflags)) $(CFLAGS) -fPIC -c -o $@ $<

fuzzers      := $(patsubst spec/fuzz/fuzz_%.c,%,$(wildcard spec/fuzz/fuzz_*.c))
fuzz_sources := $(wildcard src/base/*.c src/wire/*.c src/engine/*.c src/bind/bind.c src/bind/bind_msgpack*.c)
fuzz_objects := $(fuzz_sources:%.c=build-fuzz/%.o)
fuzz_cflags  := $(filter-out -flto% -fsanitize%,$(cflags)) -O1 -fno-omit-frame-pointer \
                -fsanitize=address,undefined -fno-sanitize-recover=all
TARGET       ?= $(fuzzers)
SECONDS      ?= 60

fuzz: $(TARGET:%=build-fuzz/fuzz_%) ## fuzz the parsers and engines: [TARGET=broker] [SECONDS=60]
	@set -e; cd build-fuzz; for name in $(TARGET); do mkdir -p new/$$name; \
	if ./fuzz_$$name -max_total_time=$(SECONDS) -timeout=10 -max_len=4096 -print_final_stats=1 \
	-artifact_prefix=$$name- new/$$name ../spec/fuzz/corpus/$$name >$$name.log 2>&1; \
	then echo "fuzz_$$name: $$(sed -n 's/^stat::number_of_executed_units: *//p' $$name.log) runs"; \
	else grep -v -E '^(#|INFO|	NEW_FUNC)' $$name.log; exit 1; fi; done

build-fuzz/fuzz_%: build-fuzz/spec/fuzz/fuzz_%.o $(fuzz_objects)
	clang $(fuzz_cflags) -fsanitize=fuzzer -o $@ $^ $(libs)

build-fuzz/%.o: %.c
	@mkdir -p $(@D)
	clang $(fuzz_cflags) -fsanitize=fuzzer-no-link -c -o $@ $<

.PRECIOUS: build-fuzz/%.o
-include $(spec_objects:.o=.d) $(fuzz_objects:.o=.d) $(fuzzers:%=build-fuzz/spec/fuzz/fuzz_%.d)
# --- end of what specs need

# Specs: all, or ONLY=name for spec/name_spec.lua or spec/system/name_spec.lua, or a folder. "unit" is
# everything but spec/system.
ONLY    ?= all
unit := $(wildcard spec/*_spec.lua)
specs    = $(if $(filter all,$(ONLY)),spec,$(if $(filter unit,$(ONLY)),$(unit),\
           $(wildcard $(foreach name,$(ONLY),spec/$(name)_spec.lua spec/system/$(name)_spec.lua spec/$(name)))))

check: all ## run the specs: [ONLY=name] [SANITIZE=address,undefined|thread]
	$(if $(SANITIZE),GATERPC_SLOW=6) ASAN_OPTIONS=abort_on_error=0:detect_stack_use_after_return=0 \
	LSAN_OPTIONS=$(if $(filter unit,$(ONLY)),,suppressions=$(CURDIR)/spec/support/lsan.supp:print_suppressions=0) \
	TSAN_OPTIONS=suppressions=$(CURDIR)/spec/support/tsan.supp:ignore_noninstrumented_modules=1:halt_on_error=1 \
	$(HOST) spec/run.lua $(specs)

lint: ## luacheck, clang-format, and the warnings of gcc and clang as errors
	luacheck -qq lua spec examples scripts
	clang-format --dry-run -Werror $(wildcard src/*/*.[ch] spec/support/*.[ch] spec/fuzz/*.[ch] scripts/bench/*.c)
	@for cc in gcc clang; do echo $(sources) | \
	xargs -n 4 -P "$$(nproc)" $$cc $(filter-out -flto% -MMD -MP,$(cflags)) -Werror -fsyntax-only || exit 1; done

format: ## clang-format over all C files
	clang-format -i $(wildcard src/*/*.[ch] spec/support/*.[ch] spec/fuzz/*.[ch] scripts/bench/*.c)

docs: host ## make the tables of docs/settings.md, and the annotations of settings, anew
	$(HOST) scripts/manual.lua --write

bench: host $(BUILD)/spec/logspec.so ## ours beside bare libzmq, in one run: [BENCH_SECONDS=2] [BENCH_ROUNDS=3]
	@mkdir -p build
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -o build/bare scripts/bench/bare.c -lzmq
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -o build/lines scripts/bench/lines.c
	@$(HOST) scripts/bench/bench.lua build/bare $(or $(BENCH_SECONDS),2) $(or $(BENCH_ROUNDS),3)
	@$(HOST) scripts/bench/security.lua $(or $(BENCH_SECONDS),2) $(or $(BENCH_ROUNDS),3) 2>/dev/null
	@$(HOST) scripts/bench/executor.lua $(or $(BENCH_SECONDS),2) $(or $(BENCH_ROUNDS),3)
	@$(HOST) scripts/bench/log.lua build/lines 200000 $(or $(BENCH_ROUNDS),3)
	@$(MAKE) -s bench-codec bench-huge

build/bare_codec: scripts/bench/bare_codec.c
	@mkdir -p build
	@$(CC) -std=c11 -D_GNU_SOURCE -O2 -o $@ $< -lz -lzstd -llz4 -lbz2 -llzma

bench-codec: host build/bare_codec ## the codecs beside their bare libraries: [BENCH_CODEC=gzip] [BENCH_ROUNDS=3]
	@$(HOST) scripts/bench/codec.lua build/bare_codec 0.5 $(or $(BENCH_ROUNDS),3)

bench-huge: host build/bare_codec ## HugeData between processes beside the bare codecs: [BENCH_CODEC=gzip] [BENCH_ROUNDS=3]
	@$(HOST) scripts/bench/huge.lua build/bare_codec 1 $(or $(BENCH_ROUNDS),3)

install: host ## install the host and its Lua files: [PREFIX=/usr/local] [DESTDIR=]
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/gaterpc/lua/gaterpc
	install -m 755 $(HOST) $(DESTDIR)$(PREFIX)/bin/gaterpc-host
	install -m 644 $(wildcard lua/gaterpc/*.lua) $(DESTDIR)$(PREFIX)/share/gaterpc/lua/gaterpc

clean: ## remove everything that was built
	rm -rf build build-*

help: ## show this
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

.PHONY: all host check lint format docs bench bench-codec bench-huge install clean help fuzz
