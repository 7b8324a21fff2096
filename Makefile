# The only place with command lines. `make`, `make demo`, `make test`.

# Everything from Debian that the demo and the tests need. apache2-bin is Apache
# without its system service, which would start on port 80.
DEMO_PACKAGES = gcc libc6-dev apache2-bin curl
TEST_PACKAGES = $(DEMO_PACKAGES) lighttpd redis-server memcached ca-certificates openssl strace chromium $(NODE_PACKAGES)
FUZZ_PACKAGES = gcc g++ libc6-dev
# The libraries of PHP and of Pushpin, which are unpacked and not installed, like
# nginx with nchan.
BENCH_PACKAGES = $(TEST_PACKAGES) perl libargon2-1 libmagic1 libsodium23 libxml2 \
    libqt5network5 libzmq5 gnuplot-nox
# A Node.js that is there already (18 or later) serves.
NODE_PACKAGES := $(shell { command -v node && command -v npm; } >/dev/null || echo nodejs npm)

PREFIX          = /usr
# Not below a directory that a server runs every program of at a URL of its own
# (ScriptAlias): there none of the configuration's settings and passwords count.
LIBEXECDIR      = $(PREFIX)/lib/novcomet
HTDOCSDIR       = $(PREFIX)/share/novcomet
MANDIR          = $(PREFIX)/share/man
APACHECONFDIR   = /etc/apache2/conf-available
LIGHTTPDCONFDIR = /etc/lighttpd/conf-available
TMPFILESDIR     = $(PREFIX)/lib/tmpfiles.d
# Where keys and passwords belong.
SYSCONFDIR      = /etc/novcomet

# Not `:=`, for `sudo make install` has no Rust.
TARGET = $(shell rustc -vV | sed -n 's/^host: //p')
# One static image, loaded where it was linked: nothing to resolve at start, and
# so nothing that RELRO would protect afterwards but a call and two page faults.
# The last is Ed25519 without a second form of it for newer processors: 14 kB.
STATIC = RUSTFLAGS="-C target-feature=+crt-static -C relocation-model=static -C relro-level=off \
    --cfg curve25519_dalek_backend=\"serial\""
# `make FEATURES=tls` builds what speaks TLS to a Redis; it is half as large again.
FEATURES =
CARGO_RELEASE = --release --locked --target $(TARGET) --features "$(FEATURES)"
CARGO_TESTS = --profile tests --locked --target $(TARGET) --features tls
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

# How long `make fuzz` tries each property.
SECONDS = 60
TOOLS   = $(CURDIR)/target/tools

.PHONY: all demo test soak fuzz bench lint install uninstall clean packages-demo packages-test packages-fuzz packages-bench

all:
	$(STATIC) cargo build $(CARGO_RELEASE)
	cp $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/comet cgi-bin/comet.cgi

demo: packages-demo all
	demo/run

test: packages-test all tests/node_modules
	$(STATIC) cargo test $(CARGO_TESTS)
	node --test tests/js/*.test.mjs
	node --test --test-concurrency=1 tests/browser/*.test.mjs

# What tests/exact.rs promises, with 100,000 messages to 100 subscribers, and load
# and faults for SOAK_SECONDS; it takes a while.
SOAK_SECONDS = 600
soak: packages-test
	EXACT_MESSAGES=100000 EXACT_SUBSCRIBERS=50 FAULTS_ABORTED=10000 FAULTS_HELD=10000 \
	    SOAK_SECONDS=$(SOAK_SECONDS) \
	    $(STATIC) cargo test $(CARGO_TESTS) --test exact --test faults --test soak

# The properties that `make test` tries on made cases, by libFuzzer. What it
# learns stays in fuzz/corpus; an input that fails is in fuzz/artifacts, and
# belongs into fuzz/seeds.
fuzz: packages-fuzz $(TOOLS)/bin/cargo-fuzz
	rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	set -e; export PATH="$(TOOLS)/bin:$$PATH"; for target in $(notdir $(wildcard fuzz/seeds/*)); do \
	    mkdir -p fuzz/corpus/$$target; \
	    cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(SECONDS) -print_final_stats=1; \
	done

$(TOOLS)/bin/cargo-fuzz:
	cargo install --locked --root $(TOOLS) cargo-fuzz

tests/node_modules: tests/package-lock.json
	npm ci --prefix tests --no-audit --no-fund
	touch $@

# Side by side with the peers. Rows can be named: make bench ROWS="start wake".
# When all have run, their curves are drawn in docs.
bench: packages-bench
	benches/peers/fetch target/peers
	rm -rf target/curves && mkdir -p target/curves
	COMET_PEERS=$(CURDIR)/target/peers COMET_CURVES=$(CURDIR)/target/curves \
	    $(STATIC) cargo bench --locked --target $(TARGET) --bench bench -- $(ROWS)
	test -n "$(ROWS)" || gnuplot benches/curves.gp

lint:
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --features tls -- -D warnings

# Copies what `make` has built, and never compiles: root often has no Rust.
install:
	@test -x cgi-bin/comet.cgi || { echo "Nothing is built yet: run make first, as a user who has Rust." >&2; exit 1; }
	install -d -m 755 $(DESTDIR)$(LIBEXECDIR)/shipped $(DESTDIR)$(HTDOCSDIR) $(DESTDIR)$(MANDIR)/man1 \
	    $(DESTDIR)$(APACHECONFDIR) $(DESTDIR)$(LIGHTTPDCONFDIR) $(DESTDIR)$(TMPFILESDIR)
	test -d $(DESTDIR)$(SYSCONFDIR) || install -d -m 750 $(KEY_GROUP) $(DESTDIR)$(SYSCONFDIR)
	install -m 755 cgi-bin/comet.cgi $(DESTDIR)$(LIBEXECDIR)
	install -m 644 htdocs/* $(DESTDIR)$(HTDOCSDIR)
	install -m 644 docs/comet.cgi.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 tmpfiles.d/novcomet.conf $(DESTDIR)$(TMPFILESDIR)
	@$(call configure,install,apache-conf/novcomet.conf,$(APACHE_CONF))
	@$(call configure,install,apache-conf/novcomet-mpm.conf,$(APACHE_MPM_CONF))
	@$(call configure,install,lighttpd-conf/novcomet.conf,$(LIGHTTPD_CONF))
	@$(MOVE_FROM_CGI_BIN)
	@test -n "$(DESTDIR)" || { cat install/next-steps; \
	    echo "The settings are in $(APACHE_CONF) and in $(LIGHTTPD_CONF)."; echo; }

uninstall:
	rm -f $(DESTDIR)$(LIBEXECDIR)/comet.cgi $(addprefix $(DESTDIR)$(HTDOCSDIR)/,$(notdir $(wildcard htdocs/*))) \
	    $(DESTDIR)$(MANDIR)/man1/comet.cgi.1 $(DESTDIR)$(TMPFILESDIR)/novcomet.conf
	@$(call configure,remove,/dev/null,$(APACHE_CONF))
	@$(call configure,remove,/dev/null,$(APACHE_MPM_CONF))
	@$(call configure,remove,/dev/null,$(LIGHTTPD_CONF))
	@for directory in $(LIBEXECDIR)/shipped $(LIBEXECDIR) $(HTDOCSDIR) $(SYSCONFDIR); do \
	    test ! -d $(DESTDIR)$$directory || rmdir --ignore-fail-on-non-empty $(DESTDIR)$$directory; done
	@test ! -d $(DESTDIR)$(SYSCONFDIR) || echo "$(DESTDIR)$(SYSCONFDIR) is kept: it has files of yours"

APACHE_CONF     = $(APACHECONFDIR)/novcomet.conf
APACHE_MPM_CONF = $(APACHECONFDIR)/novcomet-mpm.conf
LIGHTTPD_CONF   = $(LIGHTTPDCONFDIR)/50-novcomet.conf
# Action, source and file. The files name the directories that were chosen above.
configure = sed -e 's|/usr/lib/novcomet|$(LIBEXECDIR)|' -e 's|/usr/share/novcomet|$(HTDOCSDIR)|' $2 | \
    install/configuration $1 $(DESTDIR)$3 $(DESTDIR)$(LIBEXECDIR)/shipped/$(notdir $3)
# Only root can give the directory of the keys to the web server's group.
KEY_GROUP = $(shell test "$$(id -u)" != 0 || ! getent group www-data >/dev/null || echo -g www-data)

# Earlier versions put the program where /cgi-bin/ reaches it too. A configuration
# that was changed and is kept is told of the new place.
CGI_BIN = $(PREFIX)/lib/cgi-bin/novcomet
MOVE_FROM_CGI_BIN = test ! -e $(DESTDIR)$(CGI_BIN)/comet.cgi || { \
    sed -i 's|$(CGI_BIN)|$(LIBEXECDIR)|' $(addprefix $(DESTDIR),$(APACHE_CONF) $(LIGHTTPD_CONF)); \
    rm $(DESTDIR)$(CGI_BIN)/comet.cgi; rmdir --ignore-fail-on-non-empty $(DESTDIR)$(CGI_BIN); \
    echo "$(CGI_BIN)/comet.cgi is now $(LIBEXECDIR)/comet.cgi: restart the web server"; }

clean:
	cargo clean
	cargo clean --manifest-path fuzz/Cargo.toml
	rm -f cgi-bin/comet.cgi

# Installs what is absent, and says nothing when nothing is.
packages-demo: PACKAGES = $(DEMO_PACKAGES)
packages-test: PACKAGES = $(TEST_PACKAGES)
packages-fuzz: PACKAGES = $(FUZZ_PACKAGES)
packages-bench: PACKAGES = $(BENCH_PACKAGES)
packages-demo packages-test packages-fuzz packages-bench:
	@missing=$$(for package in $(PACKAGES); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || echo $$package; \
	done); \
	test -z "$$missing" || { \
	    $(SUDO) apt-get update && \
	    $(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $$missing; \
	}
