#!/usr/bin/env bash
# Makes the cluster's keys and kubeconfig files under $1.
set -euo pipefail
d=$1; mkdir -p "$d"; cd "$d"
new() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
new ca
openssl req -x509 -new -key ca.key -subj /CN=ca -days 3650 -out ca.crt
cert() { # name, subject, subjectAltName
	new "$1"
	openssl req -new -key "$1.key" -subj "$2" | openssl x509 -req -CA ca.crt -CAkey ca.key -CAcreateserial -days 3650 \
		-extfile <(printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}") -out "$1.crt" 2>/dev/null
}
conf() { # name, server
	cat >"$1.conf" <<-E
	{"apiVersion": "v1", "kind": "Config", "current-context": "c",
	 "clusters": [{"name": "c", "cluster": {"server": "$2", "certificate-authority": "$d/ca.crt"}}],
	 "users": [{"name": "u", "user": {"client-certificate": "$d/$1.crt", "client-key": "$d/$1.key"}}],
	 "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}]}
	E
}
cert apiserver /CN=kube-apiserver IP:10.99.0.1,IP:127.0.0.1,IP:10.96.0.1,DNS:kubernetes,DNS:kubernetes.default,DNS:kubernetes.default.svc
cert admin /O=system:masters/CN=admin
cert manager /CN=system:kube-controller-manager
cert scheduler /CN=system:kube-scheduler
cert proxy /CN=system:kube-proxy
for n in 1 2; do cert "node$n" "/O=system:nodes/CN=system:node:node$n" "DNS:node$n,IP:10.99.0.$n"; conf "node$n" https://10.99.0.1:6443; done
for c in admin manager scheduler proxy; do conf "$c" https://10.99.0.1:6443; done
new sa; openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
chmod -R a+rX .
touch done
