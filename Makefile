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

clean: ## remove everything that was built
	rm -rf build build-*

.PHONY: all clean
