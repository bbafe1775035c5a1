#!/usr/bin/env bash
# servers.sh PART: plain servers as the launcher's command, with their own
# benchmarks as clients from the LAN. To be run in the rig's world.
set -uo pipefail
. ../../scripts/lib.sh
. ./lib.sh

LOG=$WORK/server.log
POSTGRES=$(dirname "$(echo /usr/lib/postgresql/*/bin/postgres)")

main() {
	local pair
	cd "$WORK" || return # where every user may be
	for pair in ${PAIRS:-${pairs[@]}}; do
		SETUP=$pair
		VERSION=$(nginx -v 2>&1 | sed 's/.*nginx.//')
		CLIENT=nginx one_server 8080 nginx_server nginx_client
		VERSION=$(redis-server -v | sed 's/.*v=\([0-9.]*\).*/\1/')
		CLIENT=redis one_server 6379 redis_server redis_client
		VERSION=$("$POSTGRES/postgres" -V | sed 's/[^0-9]*\([0-9.]*\).*/\1/')
		CLIENT=postgresql one_server 5432 postgres_server postgres_client
	done
}

# one_server PORT SERVER CLIENT runs the one, published, and then the other.
one_server() {
	DIR=$(mktemp -d)
	chmod 0777 "$DIR"
	user rootlesskit --state-dir="$(runtime_dir)/launcher" --net="${SETUP%+*}" --port-driver="${SETUP#*+}" \
		--copy-up=/etc --disable-host-loopback $(publish "$1") bash -c "$("$2")" >"$LOG" 2>&1 &
	echo $! >"$WORK/launcher.pid"
	check 'its benchmark' "$3"
	check stop end "$(cat "$WORK/launcher.pid")" 30
	check 'nothing left' nothing_left
	keep_log "$LOG"
	end_all
	rm -rf "$DIR"
}

publish() { [[ $SETUP == *+implicit ]] || echo "--publish=0.0.0.0:$1:$1/tcp"; }

nginx_server() {
	cat >"$DIR/nginx.conf" <<-EOF
		daemon off; pid $DIR/pid; error_log stderr; worker_processes 2;
		events {}
		http {
			access_log off;
			client_body_temp_path $DIR/b; proxy_temp_path $DIR/p; fastcgi_temp_path $DIR/f;
			uwsgi_temp_path $DIR/u; scgi_temp_path $DIR/s;
			server { listen 8080; location / { return 200 "hello\n"; } }
		}
	EOF
	echo "exec nginx -c $DIR/nginx.conf"
}

nginx_client() {
	wait_for 30 nginx lan curl -sf http://10.77.0.1:8080/ &&
		lan timeout 60 ab -q -n 3000 -c 8 http://10.77.0.1:8080/ >"$WORK/out" &&
		grep -q '^Failed requests: *0$' "$WORK/out" && summary 'Requests per second'
}

redis_server() { echo "exec redis-server --protected-mode no --save '' --dir $DIR"; }

redis_client() {
	wait_for 30 redis lan redis-cli -h 10.77.0.1 ping &&
		lan timeout 60 redis-benchmark -h 10.77.0.1 -n 5000 -c 8 -q -t set,get >"$WORK/out" && summary 'requests per'
}

# PostgreSQL refuses to be root.
postgres_server() {
	cat <<-EOF
		set -e
		mkdir $DIR/data && chown postgres:postgres $DIR/data
		as="setpriv --reuid=postgres --regid=postgres --clear-groups"
		\$as $POSTGRES/initdb -D $DIR/data -U postgres -A trust -N
		echo 'host all all all trust' >>$DIR/data/pg_hba.conf
		exec \$as $POSTGRES/postgres -D $DIR/data -c listen_addresses='*' -c unix_socket_directories=$DIR/data -c fsync=off
	EOF
}

postgres_client() {
	wait_for 60 PostgreSQL lan "$POSTGRES/pg_isready" -h 10.77.0.1 &&
		lan timeout 60 "$POSTGRES/pgbench" -h 10.77.0.1 -U postgres -i -q postgres >"$WORK/out" 2>&1 &&
		lan timeout 60 "$POSTGRES/pgbench" -h 10.77.0.1 -U postgres -c 4 -t 200 postgres >"$WORK/out" 2>&1 && summary '^tps|failed'
}

# summary PATTERN prints the lines of the benchmark's output, as one.
summary() { tr '\r' '\n' <"$WORK/out" | grep -E "$1" | tr -s ' \n' ' '; }

main
