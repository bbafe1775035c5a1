# Compiled tests, as go test runs them: the tests become the user rootlesskit-test.
PATH=/opt/rk:/usr/sbin:/usr/bin
chmod -R a+rX /opt
ulimit -n 65536
read -r -a flags </opt/testflags
for test in /opt/rk/*.test; do
	name=$(basename "$test" .test)
	cd "$(ls -d /opt/src/*/"$name" /opt/src/*/*/"$name" /opt/src/*/*/*/"$name" 2>/dev/null | head -n 1)" || cd /tmp || exit
	timeout 1800 "$test" -test.timeout=1790s -test.v "${flags[@]}" >/tmp/out 2>&1
	code=$?
	echo "CHECK test-$name $([ $code = 0 ] && echo PASS || echo FAIL) $(grep -c '^ *--- PASS' /tmp/out) passed, $(grep -c '^ *--- FAIL' /tmp/out) failed, $(grep -c '^ *--- SKIP' /tmp/out) skipped"
	grep -A1 '^ *--- SKIP' /tmp/out | cut -c1-200 | sed "s/^/TEST $name /"
	[ $code = 0 ] || grep -v -E '^ *(=== |--- PASS|time=.*level=(DEBUG|INFO))' /tmp/out | head -n 70 | cut -c1-300 | sed "s/^/TEST $name | /"
done
