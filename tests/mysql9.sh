#!/bin/sh
# Run a command against a real MySQL (caching_sha2_password), which Debian has in sid only:
#   tests/mysql9.sh CACHE_DIR COMMAND...
# Fetches and unpacks the server into CACHE_DIR the first time (63 MB, no root, nothing installed), starts it on
# loopback with a fresh data directory, runs COMMAND with CHATASSIST_TEST_MYSQL_URL set, and stops it.
set -eu
[ $# -ge 2 ] || { echo "usage: $0 CACHE_DIR COMMAND..." >&2; exit 2; }
mkdir -p "$1"
cache=$(cd "$1" && pwd)
shift
root=$cache/root

# The mirror is the one that apt already uses for Debian's main archive.
mirror() {
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -v '^ *#' | grep -oE '[a-z+]+://[^] ]+/debian/?( |$)' | head -n 1
}

fetch() {
    apt=$cache/apt
    mkdir -p "$apt/etc" "$apt/state/lists/partial" "$apt/cache/archives/partial" "$root"
    : > "$apt/status"
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keys] $(mirror) sid main" > "$apt/etc/sources.list"
    set -- -q -o Dir::Etc::SourceList="$apt/etc/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State="$apt/state" \
        -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User= -o Debug::NoLocking=1
    apt-get "$@" update
    apt-get "$@" -y install --download-only --no-install-recommends mysql-server-core
    for package in "$apt"/cache/archives/*.deb; do
        case $package in */perl*) ;; *) dpkg-deb -x "$package" "$root" ;; esac
    done
}

# Loud, and a failure: who asked for MySQL must not take silence for a pass.
cannot() {
    printf '\n*** NO MYSQL 9: %s.\n*** Nothing was tested.\n' "$1" >&2
    exit 1
}

if ! [ -x "$root/usr/sbin/mysqld" ]; then
    for tool in apt-get dpkg-deb; do
        command -v "$tool" >/dev/null || cannot "it is brought as a Debian package, and $tool is not here"
    done
    [ -n "$(mirror)" ] || cannot "apt knows no Debian mirror to bring it from"
    (fetch) & # not in a condition, where set -e would not count
    wait $! || cannot "it could not be brought from $(mirror) (see above)"
fi

# Started by sid's own loader and libraries: this system's are older.
libraries=$(dirname "$(find "$root/usr/lib" -name 'libc.so.6' | head -n 1)")
loader=$(find "$libraries" -name 'ld-linux-*.so.*' | head -n 1)
data=$(mktemp -d)
mysqld() {
    exec "$loader" --library-path "$libraries" "$root/usr/sbin/mysqld" --no-defaults --basedir="$root/usr" \
        --plugin-dir="$root/usr/lib/mysql/plugin" --lc-messages-dir="$root/usr/share/mysql" \
        --character-sets-dir="$root/usr/share/mysql/charsets" --secure-file-priv=NULL --mysqlx=OFF \
        --performance-schema=OFF --innodb-buffer-pool-size=32M --skip-log-bin --datadir="$data/db" \
        --user="$(id -un)" --log-error="$data/log" "$@"
}

server=
finish() {
    [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || :; }
    rm -rf "$data"
}
trap finish EXIT
trap 'exit 130' INT TERM

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat > "$data/accounts.sql" <<SQL
CREATE USER IF NOT EXISTS 'tester'@'%' IDENTIFIED BY 'only-on-loopback';
GRANT ALL ON *.* TO 'tester'@'%' WITH GRANT OPTION;
SQL
(mysqld --initialize-insecure) || { cat "$data/log" >&2; exit 1; }
mysqld --bind-address=127.0.0.1 --port="$port" --socket="$data/socket" --pid-file="$data/pid" \
    --init-file="$data/accounts.sql" &
server=$!
ready='import socket, sys; socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1).recv(1) or sys.exit(1)'
until python3 -c "$ready" "$port" 2>/dev/null; do
    kill -0 "$server" 2>/dev/null || { cat "$data/log" >&2; exit 1; }
    sleep 0.2
done
CHATASSIST_TEST_MYSQL_URL="mysql://tester:only-on-loopback@127.0.0.1:$port" "$@"
