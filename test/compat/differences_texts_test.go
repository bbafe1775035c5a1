package compat

var meantInAPI = []difference{
	{test: `API.*|RawHTTP`, key: `.*\.header Content-Type`, upstream: `\["text/plain; charset=utf-8"\]`, here: `\["application/json"\]`, reason: "errors are JSON, and say so"},
	{test: `API.*|RawHTTP`, key: `.*\.header X-Content-Type-Options`, here: absent, reason: "errors are JSON"},
	{test: `API.*|RawHTTP`, key: `.*\.body`, upstream: `(404 page not found|Method Not Allowed|50[15] .*|Unsupported .*|4\d\d .*)\n?|`, here: absent, reason: "every error is an object with a message"},
	{test: `API.*|RawHTTP`, key: `.*\.body(\.message| ends in a newline)`, upstream: absent, here: `"(no such path: |.* has no method |.* is not supported, only HTTP/1\.1 is|malformed |unsupported ).*"|false`, reason: "every error is an object with a message"},
	{test: `API.*|RawHTTP`, key: `.*\.body\.(apiVersion|version)`, reason: "another version"},
	{test: `API.*|RawHTTP`, key: `.*\.body\.portDriver\.(proxyProtocols|extra.sourceIPTransparentProtocols)`, upstream: absent, reason: "what the original cannot do"},
	{test: `API.*|RawHTTP`, key: `.*\.body`, upstream: `null|` + absent, here: `\[\]`, reason: "an empty list is a list"},
	{test: `API.*|RawHTTP`, key: `.*\.body ends in a newline`, upstream: `true|false`, here: `false|` + absent, reason: "no body ends in a newline; the original's errors do"},
	{test: `API/.*(gvisor-tap-vsock|pesto|slirp4netns).*`, key: `.*\.body\.message`, here: `"(conflict with ID \d+|unknown id: -?\d+|listen tcp4? .*: bind: .*|unsupported port protocol .*|unknown proto: .*)"`,
		reason: "the ports of all drivers are in one table, and their errors have the builtin driver's words, on which clients rely"},
	{test: `API/.*port-driver=gvisor-tap-vsock.*`, key: `.*\.body\.(id|spec\.childIP)`, reason: "a port specification is echoed as it came, and a failure has no id"},
	{test: `API/.*port-driver=gvisor-tap-vsock.*`, key: `(list|list again)\.1\.body.*`, reason: "a port specification is echoed as it came, and a failure has no id"},
	{test: `API/.*port-driver=gvisor-tap-vsock.*`, key: `add with child\..*`, reason: "this driver cannot reach the loopback inside, as /info says; the original takes the port, and it never answers"},
	{test: `API/.*port-driver=slirp4netns.*`, key: `(add 6 udp4 0\.0\.0\.0|list|list again)\..*`, reason: "slirp4netns sends the answers of two UDP ports with one child port by one of them; the second is refused"},
	{test: `API/.*port-driver=slirp4netns.*`, key: `add with child\..*`, reason: "this driver cannot reach the loopback inside, as /info says; the original takes the port, and it never answers"},
	{test: `API/.*port-driver=slirp4netns.*`, key: `add (again)\.1\.body\.id`, reason: "the port that was refused has no id"},
	{test: `API/.*port-driver=pesto.*`, key: `add 8 tcp 192\.0\.2\.77\..*`, reason: "an address that is not the host's is refused; pasta takes it, and nobody can connect"},
	{test: `API/.*port-driver=pesto.*`, key: `add with child\..*`, reason: "a child address on the loopback is served"},
	{test: `API/.*port-driver=pesto.*`, key: `((list|list again)\.1\.body.*|add again\.1\.body\.id)`, reason: "follows from the two above"},
	{test: `API/.*builtin.*|RawHTTP`, key: `.*\.body\.portDriver\.extra\.sourceIPTransparentBackend`, upstream: `"none"`, here: `"nft"`, reason: "the original does not always find nft"},
}

var meantInRawHTTP = []difference{
	{test: `RawHTTP`, key: `.*\.header Allow`, reason: "that GET brings HEAD goes without saying"},
	{test: `RawHTTP`, key: `.*\.body\.message`, here: `"(bad request body: |reading the body: |the header |too many |http: message |bad Content-Length |cannot expose privileged port ).*"`, reason: "errors say what is wrong, with the value"},
	{test: `RawHTTP`, key: `HTTP/1\.0( kept)?\..*`, reason: "a connection of HTTP/1.0 is not kept"},
	{test: `RawHTTP`, key: `(rubbish after it|two objects|afterwards)\..*`, reason: "what follows the object is an error; the original passes over it"},
	{test: `RawHTTP`, key: `(a|too) large (a )?(header|body)\..*`, reason: "requests are bounded"},
	{test: `RawHTTP`, key: `cut: a body that ends early\..*`, reason: "a client that has gone gets no answer"},
}

var meantInSockets = []difference{
	{test: `Sockets.*`, key: `socket: tcp, published: (protocol|IPv6 alone|packet info|path MTU discovery|receive errors|ttl|user timeout)`, reason: "the listener is one of TCP; package net, which the original has, makes it one of MPTCP, and no more options"},
	{test: `Sockets.*`, key: `socket: tcp, published: nodelay`, here: `1`, reason: "what is accepted inherits it"},
	{test: `Sockets.*`, key: `socket: udp, .*: broadcast`, upstream: `1`, here: `0`, reason: "a client has no broadcast address"},
	{test: `Sockets.*`, key: `socket: udp, .*: (receive|send) buffer`, upstream: `212992`, here: `8388608`, reason: "bursts fit in"},
	{test: `Sockets.*`, key: `socket: tcp, .*: (receive|send) buffer`, reason: "the kernel makes it grow as it is used, and the two are used in other ways"},
	{test: `Sockets.*`, key: `socket: .*, the server's side: (reuse address|transparent|free bind|address without port)`, reason: "sockets are made ready in advance, for any client's address"},
	{test: `Sockets/--net=gvisor-tap-vsock_--port-driver=gvisor.*`, key: `socket: tcp, the client's side: keepalive: idle`, upstream: `60`, here: `15`, reason: "keepalive is the same with every driver"},
	{test: `Sockets/--net=slirp4netns_--port-driver=slirp4netns.*`, key: `socket: udp, .*`, reason: "a UDP port on the loopback is served by the builtin driver's relay: slirp4netns drops the answers"},
	{test: `Sockets.*`, key: `tcp: nobody listens`, upstream: `EOF`, here: `connection reset by peer`, reason: "a client that is refused inside sees that it was"},
	{test: `Sockets.*`, key: `socket: (tcp, published|udp, the server's side): keepalive.*`, upstream: `0|7200|75`, here: `1|15`, reason: "what is accepted inherits it; sockets are made ready in one way"},
	{test: `Signals.*pidns.*`, key: `arrived`, upstream: `\[\]`, reason: "no signal is lost; the original's first process of a PID namespace misses some"},
	{test: `Signals.*pidns.*`, key: `arrived`, upstream: `\["\[rootlesskit:parent\] error: child exited: exit status 2"\]`, reason: "the original's first process of a PID namespace ends by signals now and then"},
	{test: `Signals.*`, key: `the launcher ended`, upstream: `true`, here: `false`, reason: "a signal is passed on, and ends the command or does not; the original now and then ends by itself"},
}

var meantInTexts = []difference{
	{test: `CommandLines/.*(copy-up-mode|reaper|propagation).*`, key: `run\.(code|stderr)`, upstream: `-1|\[rootlesskit:child \] error: .*`, here: `0|1||\[rootlesskit:parent\] error: .*`, reason: "what is wrong with the flags is said before anything is started; the original's parent hangs"},
	{test: `CommandLines/.*copy-up.*`, key: `run\.stderr`, upstream: `\[rootlesskit:child \] error: .*`, here: `\[rootlesskit:parent\] error: .*`, reason: "one error, which names the directory"},
	{test: `CommandLines/.*`, key: `run\.stdout`, upstream: `Incorrect Usage: .*`, here: ``, reason: "a mistake is told in one line on standard error, not below a page of help"},
	{test: `CommandLines/(-v|--version|--print-semver=minor)`, key: `run\.stdout`, reason: "another version"},
	{test: `CommandLines/.*pasta-binary=/bin/(true|false).*`, key: `run\.(code|stderr)`, here: `1|.*pasta is too old: .*`, reason: "the helper is asked for what is needed of it"},
	{test: `CommandLines/.*slirp4netns-binary=/bin/false.*`, key: `run\.stderr`, here: `.*slirp4netns seems older than v0\.4\.0.*`, reason: "one line, without the helper's page of help"},
	{test: `CommandLines/.*cidr=10\.0\.2\.0/31.*`, key: `run\.(code|stderr)`, here: `1|.*cidr must be an IPv4 network of at least 128 addresses.*`, reason: "found before anything is started"},
	{test: `CommandLines/(\||\./nosuchcmd|/nowhere/cmd|/etc/passwd|/etc)`, key: `run\.stderr`, upstream: `.*(fork/exec|no command).*`, here: `.*error: command \[.*\] exited: exec: ".*": .*`, reason: "a command is looked up once, with the words of package exec"},
	{test: `CommandLines/.*--publish=.*-p=.*`, key: `run\.(code|stderr)`, here: `0|`, reason: "both names of a flag may be used in one command line"},
	{test: `CommandLines/(---net=none\|true|--net|--(pidns|debug|mtu)=.*)`, key: `run\.stderr`, upstream: `\[rootlesskit:parent\] error: .*`, here: `\[rootlesskit:parent\] error: (flag|invalid value) .*`, reason: "the words of another parser of flags"},
	{test: `CommandLines/.*\|8080:80/tcp.*`, key: `run\.(code|stderr)`, here: `0|`, reason: "the parent address may be left out"},
	{test: `CommandLines/.*`, key: `run\.stderr`, upstream: `(?U)(.*)`, here: `(?s).*(\n\[rootlesskit:parent\] hint: .*|: the form is \[PARENTIP\].*|did you mean .*)`, reason: "the error says what to do"},
	{test: `CommandLines/.*(18080|127\.0\.0\.1:80:80|sctp).*`, key: `run\.stderr`, here: `.*failed to expose port 127\.0\.0\.1:\d+:80/(tcp|sctp): .*`, reason: "a port is written as the user wrote it"},
	{test: `CommandLines/--mtu=-5.*`, key: `run\.stderr`, here: `.*mtu must be between 0 and 65521, got -5`, reason: "a negative number is below 65521"},
	{test: `CommandLines/--copy-up=/proc.*`, key: `run\.(code|stderr)`, here: `1|.*/proc cannot be copied up`, reason: "a copy of /proc would be of no use"},
	{test: `CommandLines/--print-semver=`, key: `run\.stderr`, here: `.*expected --print-semver=.*got "".*`, reason: "an empty component is no component"},
	{test: `CommandLines/.*vpnkit.*`, key: `run\.stderr`, here: `.*network driver "vpnkit" is retired.*`, reason: "VPNKit has no maintainer; the error names what to use"},
	{test: `CommandLines/.*(::1:18083|/tcp).*`, key: `run\.stderr`, here: `.*unexpected PortSpec string: .*: not of the form .*`, reason: "the error says the form"},
	{test: `CommandLines/.*--evacuate-cgroup2=.*`, key: `run\.stderr`, here: `(?s).*evacuating to cgroup "foo": mkdir .*`, reason: "the error says what was tried"},
	{test: `StandInTheWay/no_(network_)?namespaces.*`, key: `run\.stderr`, here: `.*see the sysctls user\.max_user_namespaces.*`, reason: "the error says what to do"},
	{test: `StandInTheWay/root_of_a_namespace`, key: `run\.(code|stderr)`, here: `0|`, reason: "a user without subordinate ids has the own id alone"},
}

var meantInControl = []difference{
	{test: `Control.*`, key: `.*\.stdout`, upstream: `(?s)(Incorrect Usage: .*)?NAME:.*`, reason: "help and versions are other texts; a mistake is told in one line"},
	{test: `Control.*`, key: `.*\.stderr`, here: `(?s).*(Did you mean .*|did you mean .*|the form is \[PARENTIP\].*|list-ports shows the IDs\)|rootlesskit is not running .*|connecting to rootlesskit .*)`, reason: "the error says what to do"},
	{test: `Control.*`, key: `.*(info|list-ports)\|extra\.(code|stdout|stderr)`, here: `1||error: .* takes no arguments, .*`, reason: "what is too much is an error"},
	{test: `Control.*`, key: `.*--version\.stdout`, reason: "another version"},
	{test: `Control.*`, key: `.*(info|info\|extra)\.stdout`, upstream: `(?s).*version: .*`, here: `(?s)- REST API version: .*- Implementation version: .*`, reason: "another version"},
	{test: `Control.*`, key: `.*--json=x.*\.stderr`, here: `error: invalid value "x" for flag -json: parse error`, reason: "the words of another parser of flags"},
	{test: `Control.*`, key: `.*remove-ports\|-1\.stderr`, upstream: `error: flag provided but not defined: -1`, reason: "a negative number is an id, if an unknown one"},
	{test: `Control.*`, key: `.*127\.0\.0\.1:80:80/tcp\.stderr`, here: `.*cannot expose privileged port 80, .*setcap cap_net_bind_service=ep .*`, reason: "the error says the command"},
}
