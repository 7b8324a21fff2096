# The only place with command lines. `make`, `make demo`, `make test`, `make help`.

# Everything from Debian that the demo and the tests need. apache2-bin is Apache
# without its system service, which would start on port 80; redis-tools has Redis
# without its service. Servers whose package has one are unpacked, not installed.
DEMO_PACKAGES = gcc libc6-dev apache2-bin curl
TEST_PACKAGES = $(DEMO_PACKAGES) redis-tools ca-certificates openssl strace acl $(BROWSER_PACKAGES) \
    $(NODE_PACKAGES) $(SERVER_LIBRARIES) $(RECIPE_PACKAGES) $(PYTHON_PACKAGES) $(BACKUP_PACKAGES)
# WebKitGTK's MiniBrowser needs a display: Xvfb has one in memory.
BROWSER_PACKAGES = chromium $(DBUS_PACKAGE) firefox-esr webkit2gtk-driver xvfb
# The languages of docs/recipes.md.
RECIPE_PACKAGES = php-cli python3 ruby
# What restores event files.
BACKUP_PACKAGES = rsync
# The environment of what tests/requirements.txt lists.
PYTHON_PACKAGES = python3-venv
SERVERS = lighttpd memcached nginx haproxy $(GRIP_PACKAGES)
# Pushpin, which Debian 13 has not, and its parts where they are packages of their own (Debian 12).
GRIP_PACKAGES := $(shell apt-cache depends pushpin 2>/dev/null | \
    sed -n 's/^pushpin$$/&/p; s/^[ |]*Depends: \(condure\|zurl\)$$/\1/p')
# It has promtool, the check of our figures. Unpacked it takes 96 MB.
PROMETHEUS = prometheus
SERVER_LIBRARIES = libnettle8 libpcre2-8-0 libxxhash0 libevent-2.1-7 libsasl2-2 libssl3 $(OTHER_LIBRARIES)
# Their names have numbers that differ between Debian 12 and 13.
OTHER_LIBRARIES := $(shell apt-cache depends haproxy $(GRIP_PACKAGES) 2>/dev/null | \
    sed -n 's/^ *Depends: \(lib\(lua\|opentracing\|qt\|zmq\|curl\)[^ ]*\)$$/\1/p' | sort -u)
# The session bus that Chromium depends on; the other choice brings systemd.
DBUS_PACKAGE := $(shell dpkg-query -W dbus-user-session >/dev/null 2>&1 || echo dbus-x11)
FUZZ_PACKAGES = gcc g++ libc6-dev
# The libraries of PHP and of Pushpin, which are unpacked and not installed, like
# nginx with nchan.
BENCH_PACKAGES = $(TEST_PACKAGES) perl libargon2-1 libmagic1 libsodium23 libxml2 \
    libqt5network5 libzmq5 gnuplot-nox
BARE_PACKAGES = debootstrap iproute2
DEB_PACKAGES = gcc libc6-dev debhelper fakeroot lintian
# A linker for another processor, and an emulator that starts what it has linked.
CROSS_PACKAGES = gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
# An installed Node.js serves if it is version 18 (Debian 12) or later.
NODE_PACKAGES := $(shell { command -v node && command -v npm; } >/dev/null || echo nodejs npm)
NODE_VERSION = 18

PREFIX          = /usr
# Not below a directory that a server runs every program of at a URL of its own
# (ScriptAlias): there none of the configuration's settings and passwords count.
LIBEXECDIR      = $(PREFIX)/lib/novcomet
HTDOCSDIR       = $(PREFIX)/share/novcomet
MANDIR          = $(PREFIX)/share/man
COMPLETIONSDIR  = $(PREFIX)/share/bash-completion/completions
APACHECONFDIR   = /etc/apache2/conf-available
LIGHTTPDCONFDIR = /etc/lighttpd/conf-available
TMPFILESDIR     = $(PREFIX)/lib/tmpfiles.d
# Where keys and passwords belong.
SYSCONFDIR      = /etc/novcomet

# Not `:=`, for `sudo make install` has no Rust.
TARGET = $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
# One static image, loaded where it was linked: nothing to resolve at start, and
# so nothing that RELRO would protect afterwards but a call and two page faults.
# The last is Ed25519 without a second form of it for newer processors: 14 kB.
STATIC_FLAGS = -C target-feature=+crt-static -C relocation-model=static -C relro-level=off \
    --cfg curve25519_dalek_backend=\"serial\"
STATIC = RUSTFLAGS="$(STATIC_FLAGS)"
# The same bytes wherever it is built: the crates' sources are named by no home.
REMAP = --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo
# `make FEATURES=tls` builds what speaks TLS to a Redis; it is half as large again.
FEATURES =
CARGO_RELEASE = --release --locked --target $(TARGET) --features "$(FEATURES)"
BUILD = RUSTFLAGS="$(STATIC_FLAGS) $(REMAP)" cargo build $(CARGO_RELEASE) --bin comet
BUILT = $(or $(CARGO_TARGET_DIR),target)/$(TARGET)/release/comet
CARGO_TESTS = --profile tests --locked --target $(TARGET) --features tls

# How long `make fuzz` tries each property.
SECONDS = 60
TOOLS   = $(CURDIR)/target/tools

.PHONY: all toolchain help demo test check bare bare-long soak fuzz bench lint minify install uninstall clean \
    deb test-deb reproducible cross \
    packages-demo packages-test packages-bare packages-fuzz packages-bench packages-deb packages-cross

all: toolchain            ## builds cgi-bin/comet.cgi
	@command -v cc >/dev/null || { echo "A C compiler is missing, by which Rust links: on Debian, apt install gcc libc6-dev" >&2; exit 1; }
	$(BUILD)
	cp $(BUILT) cgi-bin/comet.cgi

# Before anything is installed or built.
RUST_VERSION = $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
toolchain:
	@version=$$(cargo -V >/dev/null 2>&1 && rustc -V 2>/dev/null | sed 's/^rustc \([0-9.]*\).*/\1/'); \
	printf '%s\n' $(RUST_VERSION) "$${version:-0}" | sort -CV || { \
	    echo "NovComet needs Rust $(RUST_VERSION) or later, not $${version:-none}: README.md says which packages of Debian have it" >&2; \
	    exit 1; \
	}

help:                     ## lists what make can do
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 14
	@echo "demo, test, bare, deb, cross, soak, bench and fuzz install the packages that they need, by sudo unless you are root."

demo: toolchain packages-demo all   ## serves the demo page on a port of loopback, until Ctrl-C
	demo/run

# Most of these tests wait for other processes, so twice as many run at once as there are
# processors. The others load the machine themselves.
MANY    = binary stores
FEW     = $(filter-out $(MANY),$(basename $(notdir $(wildcard tests/*.rs))))
AT_ONCE = $(shell expr 2 \* $$(nproc))
test: toolchain packages-test all tests/node_modules target/python  ## runs all tests; as root also those that need root
	exec tests/run sh -ec 'export $(STATIC); \
	    cargo build $(CARGO_TESTS) --examples; \
	    cargo test $(CARGO_TESTS) --lib $(addprefix --test ,$(MANY)) -- --test-threads=$(AT_ONCE); \
	    cargo test $(CARGO_TESTS) $(addprefix --test ,$(FEW)); \
	    cargo test $(CARGO_TESTS) --doc; \
	    node --test tests/js/*.test.mjs; \
	    node --test --test-concurrency=1 tests/browser/*.test.mjs'

# What needs no server, no package and no root.
check: toolchain lint     ## format, clippy, and the tests that need no server: a minute
	$(STATIC) exec tests/run cargo test $(CARGO_TESTS) --lib --test house --test binary -- \
	    $(addprefix --skip binary::,$(LONG))
# These modules of tests/binary.rs take minutes, root, or the examples.
LONG = crash:: full:: neighbours:: own_check:: process:: readers:: sandbox::

# Debian 12 and 13, as root and as a user with sudo.
SUITES = bookworm trixie
BARE   = $(shell test "$$(id -u)" = 0 || echo sudo) env HOME="$$HOME" PATH="$$PATH" SUITES="$(SUITES)" OWNERS="$(OWNERS)" tests/bare/run
bare: packages-bare       ## takes the steps of README.md on bare machines; SUITES=trixie OWNERS=user picks
	$(BARE) short
bare-long: packages-bare  ## the same, with "make test" on each of them
	$(BARE) long

# What tests/load/exact.rs promises, with 100,000 messages to 100 subscribers; 10,000
# clients that give up, and 10,000 that wait; 3,000 rounds of faults in a small crowd at
# random, and one at each system call; 5,000 streams and 5,000 polls behind Pushpin, and
# 1,000 rounds of its race; then load and faults for SOAK_SECONDS. All but the last take as long as they
# take.
SOAK_SECONDS = 600
soak: packages-test       ## runs the tests of load and faults at full size, the last for SOAK_SECONDS=600
	EXACT_MESSAGES=100000 EXACT_SUBSCRIBERS=50 FAULTS_ABORTED=10000 FAULTS_HELD=10000 \
	    TOGETHER_ROUNDS=3000 TOGETHER_CALLS=10000 TOGETHER_CROWD=5000 \
	    GRIP_CROWD=5000 GRIP_POLLS=5000 GRIP_ROUNDS=1000 SOAK_SECONDS=$(SOAK_SECONDS) \
	    exec tests/run sh -ec '$(STATIC) cargo test $(CARGO_TESTS) --test servers -- servers::grip:: --test-threads=1; \
	    $(STATIC) cargo test $(CARGO_TESTS) --test load -- --skip load::crowd::'

# The properties that `make test` tries on made cases, by libFuzzer. What it
# learns stays in fuzz/corpus; an input that fails is in fuzz/artifacts, and
# belongs into fuzz/seeds.
fuzz: packages-fuzz $(TOOLS)/bin/cargo-fuzz  ## has libFuzzer try each property for SECONDS=60
	rustup toolchain list | grep -q ^nightly || rustup toolchain install nightly --profile minimal
	PATH="$(TOOLS)/bin:$$PATH" exec tests/run sh -ec 'for target in $(notdir $(wildcard fuzz/seeds/*)); do \
	    mkdir -p fuzz/corpus/$$target; \
	    cargo +nightly fuzz run $$target fuzz/corpus/$$target fuzz/seeds/$$target -- \
	        -max_total_time=$(SECONDS) -print_final_stats=1; \
	done'

$(TOOLS)/bin/cargo-fuzz:
	cargo install --locked --root $(TOOLS) cargo-fuzz

tests/node_modules: tests/package-lock.json
	npm ci --prefix tests --no-audit --no-fund
	touch $@

# Clients of Bayeux and of event streams for Python.
target/python: tests/requirements.txt
	python3 -m venv $@
	$@/bin/pip install -q --disable-pip-version-check --no-deps -r $<
	touch $@

# The file is in the repository, so that `make install` and a page need no Node.js.
MINIFIED = htdocs/NovComet.min.js
minify: tests/node_modules  ## makes htdocs/NovComet.min.js of NovComet.js
	tests/node_modules/.bin/terser htdocs/NovComet.js --compress --mangle --comments some -o $(MINIFIED)

# Side by side with the peers. Rows can be named: make bench ROWS="start wake".
# When all have run, their curves are drawn in docs.
bench: packages-bench     ## measures, beside nchan and Pushpin; ROWS="start wake" picks rows
	benches/peers/fetch target/peers
	rm -rf target/curves && mkdir -p target/curves
	COMET_PEERS=$(CURDIR)/target/peers COMET_CURVES=$(CURDIR)/target/curves \
	    $(STATIC) exec tests/run cargo bench --locked --target $(TARGET) --bench bench -- $(ROWS)
	test -n "$(ROWS)" || gnuplot benches/curves.gp

# The documents, the shipped configurations and the comments of all programs are checked.
ENGLISH = README.md DESIGN.md CONTRIBUTING.md CHANGELOG.md docs/*.md docs/comet.cgi.1 debian/README.Debian \
    apache-conf/*.conf lighttpd-conf/*.conf tmpfiles.d/*.conf cgi-bin/.htaccess tests/*/*.mjs
lint:                     ## checks format, style, the public surface, and the English of documents and comments
	cargo fmt --check
	cargo fmt --check --manifest-path fuzz/Cargo.toml
	cargo clippy --locked -- -D warnings
	cargo clippy --locked --all-targets --features tls -- -D warnings
	tests/surface tests/surface.txt
	tests/english $(ENGLISH) $$(find src tests benches examples -name node_modules -prune -o -name "*.rs" -print)

# Copies what `make` has built, and never compiles: root often has no Rust.
install:                  ## installs what make has built, below DESTDIR and PREFIX=/usr (by sudo)
	@test -x cgi-bin/comet.cgi || { echo "Nothing is built yet: run make first, as a user who has Rust." >&2; exit 1; }
	install -d -m 755 $(DESTDIR)$(LIBEXECDIR)/shipped $(DESTDIR)$(HTDOCSDIR) $(DESTDIR)$(MANDIR)/man1 \
	    $(DESTDIR)$(APACHECONFDIR) $(DESTDIR)$(LIGHTTPDCONFDIR) $(DESTDIR)$(TMPFILESDIR) \
	    $(DESTDIR)$(COMPLETIONSDIR)
	test -d $(DESTDIR)$(SYSCONFDIR) || install -d -m 750 $(KEY_GROUP) $(DESTDIR)$(SYSCONFDIR)
	install -m 755 cgi-bin/comet.cgi $(DESTDIR)$(LIBEXECDIR)
	install -m 644 htdocs/* $(DESTDIR)$(HTDOCSDIR)
	install -m 644 docs/comet.cgi.1 $(DESTDIR)$(MANDIR)/man1
	install -m 644 install/completion $(DESTDIR)$(COMPLETIONSDIR)/comet.cgi
	install -m 644 tmpfiles.d/novcomet.conf $(DESTDIR)$(TMPFILESDIR)
	@$(call configure,install,apache-conf/novcomet.conf,$(APACHE_CONF))
	@$(call configure,install,apache-conf/novcomet-mpm.conf,$(APACHE_MPM_CONF))
	@$(call configure,install,lighttpd-conf/novcomet.conf,$(LIGHTTPD_CONF))
	@$(MOVE_FROM_CGI_BIN)
	@test -n "$(DESTDIR)" || { cat install/next-steps; \
	    echo "The settings are in $(APACHE_CONF) and in $(LIGHTTPD_CONF)."; echo; }

uninstall:                ## removes what install has put there, and keeps what was edited (by sudo)
	rm -f $(DESTDIR)$(LIBEXECDIR)/comet.cgi $(addprefix $(DESTDIR)$(HTDOCSDIR)/,$(notdir $(wildcard htdocs/*))) \
	    $(DESTDIR)$(MANDIR)/man1/comet.cgi.1 $(DESTDIR)$(TMPFILESDIR)/novcomet.conf \
	    $(DESTDIR)$(COMPLETIONSDIR)/comet.cgi
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

# Built beside the checkout's own files, because debhelper leaves files of its own. Rust
# may be from rustup, of which dpkg does not know.
DEB = target/deb
deb: all packages-deb     ## builds a Debian package in target/deb, and checks it by lintian
	rm -rf $(DEB)
	mkdir -p $(DEB)/novcomet
	git -c safe.directory='*' ls-files -z | tar -c --null --files-from - | tar -x -C $(DEB)/novcomet
	cp cgi-bin/comet.cgi $(DEB)/novcomet/cgi-bin
	cd $(DEB)/novcomet && dpkg-buildpackage --build=binary --no-sign --no-check-builddeps
	rm -r $(DEB)/novcomet
	lintian --fail-on error,warning $(DEB)/*.changes
test-deb: deb packages-bare  ## installs, upgrades and purges that package on fresh Debians, with their servers
	$(BARE) deb

# The last commit, from two directories, homes and caches of cargo.
reproducible: toolchain packages-deb  ## builds the executable and the package twice, and compares them
	tests/reproducible

# Other processors and another C library. Each starts once.
CROSS_TARGETS = aarch64-unknown-linux-gnu aarch64-unknown-linux-musl x86_64-unknown-linux-musl
cross: toolchain packages-cross $(addprefix cross-,$(CROSS_TARGETS))  ## builds the executable for aarch64 and for musl, in target/TARGET/release
cross-%: TARGET = $*
cross-%:
	rustup target list --installed | grep -qx $* || rustup target add $*
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc \
	    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc $(BUILD)
	$(if $(filter aarch64-%,$*),qemu-aarch64) $(BUILT) --version

clean:                    ## removes what was built
	cargo clean
	cargo clean --manifest-path fuzz/Cargo.toml
	rm -f cgi-bin/comet.cgi

# Installs what is missing, and says nothing when nothing is.
packages-demo:
	@tests/packages demo $(DEMO_PACKAGES)
packages-test:
	@tests/packages test $(TEST_PACKAGES) -- $(SERVERS) $(PROMETHEUS)
	@node -e 'process.exit(parseInt(process.versions.node) < $(NODE_VERSION) ? 1 : 0)' || { \
	    echo "make test needs Node.js $(NODE_VERSION) or later; $$(command -v node) is $$(node --version)" >&2; exit 1; }
packages-bare:
	@tests/packages bare $(BARE_PACKAGES)
packages-deb:
	@tests/packages deb $(DEB_PACKAGES)
packages-cross:
	@tests/packages cross $(CROSS_PACKAGES)
packages-fuzz:
	@tests/packages fuzz $(FUZZ_PACKAGES)
packages-bench:
	@tests/packages bench $(BENCH_PACKAGES) -- $(SERVERS)
