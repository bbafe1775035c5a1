#!/usr/bin/env bash
# A node, inside of the launcher: node.sh NUMBER. Node 1 has the control plane, too.
set -eu
N=$1 M=$((3 - $1))
IP=10.99.0.$N OTHER=10.99.0.$M KEYS=$RUN/keys LOG=$HOME/log DATA=$HOME/data
export PATH=$RUN/bin:$PATH
mkdir -p "$LOG" "$DATA"/{etcd,kubelet,containerd}
hostname "node$N"

# What outlives the node is on the host's disk: /var/lib is a copy in memory. What the
# copies show of the host's is not the node's.
for d in kubelet containerd; do
	rm -rf "/var/lib/$d"; mkdir -p "/var/lib/$d"; mount --bind "$DATA/$d" "/var/lib/$d"
done
rm -rf /run/netns /run/containerd /run/runc /run/xtables.lock /var/lib/cni /var/log/pods /var/log/containers /etc/cni /etc/containerd
mkdir -p /etc/cni/net.d /etc/containerd

# The address of the host is one of the node's own, so that what is told of it to others is true here.
ip link set lo up
ip addr add "$IP/32" dev lo
echo 1 >/proc/sys/net/ipv4/ip_forward

# The overlay, as flannel makes it: to the pods of the other node by VXLAN to the other host.
ip link add flannel.1 address "02:99:00:00:00:0$N" type vxlan id 1 dstport 8472 dev tap0 nolearning
ip addr add "10.244.$N.0/32" dev flannel.1
ip link set flannel.1 mtu $((MTU - 50)) up
bridge fdb append "02:99:00:00:00:0$M" dev flannel.1 dst "$OTHER"
ip neigh add "10.244.$M.0" lladdr "02:99:00:00:00:0$M" dev flannel.1 nud permanent
ip route add "10.244.$M.0/24" via "10.244.$M.0" dev flannel.1 onlink
nft -f - <<E
table ip podmasq {
	chain post {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
	}
}
E
cat >/etc/cni/net.d/10-pods.conflist <<E
{"cniVersion": "0.4.0", "name": "pods", "plugins": [
  {"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": $((MTU - 50)),
   "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.$N.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
E
cat >/etc/containerd/config.toml <<E
version = 2
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[plugins."io.containerd.grpc.v1.cri"]
  disable_cgroup = true
  disable_apparmor = true
  restrict_oom_score_adj = true
  disable_hugetlb_controller = true
  sandbox_image = "localhost/pod:1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "/etc/cni/net.d"
E
cat >/etc/kubelet.yaml <<E
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
featureGates: {KubeletInUserNamespace: true}
failCgroupV1: false
failSwapOn: false
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $KEYS/ca.crt}}
authorization: {mode: Webhook}
tlsCertFile: $KEYS/node$N.crt
tlsPrivateKeyFile: $KEYS/node$N.key
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
evictionHard: {memory.available: 50Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 4s
syncFrequency: 10s
E
cat >/etc/kube-proxy.yaml <<E
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: $PROXYMODE
clientConnection: {kubeconfig: $KEYS/proxy.conf}
clusterCIDR: 10.244.0.0/16
hostnameOverride: node$N
nodePortAddresses: [0.0.0.0/0]
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
E
daemon() { # starts a program again when it ends
	local name=$1; shift
	while :; do "$@" >>"$LOG/$name.log" 2>&1 || true; echo "node: $name ended" >>"$LOG/$name.log"; sleep 1; done
}
cd /
daemon containerd containerd --log-level info &
if [ "$N" = 1 ]; then
	daemon etcd etcd --name e --data-dir "$DATA/etcd" --listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379 \
		--listen-peer-urls http://127.0.0.1:2380 --initial-advertise-peer-urls http://127.0.0.1:2380 --initial-cluster e=http://127.0.0.1:2380 --unsafe-no-fsync --log-level warn &
	daemon apiserver kube-apiserver --etcd-servers=http://127.0.0.1:2379 --advertise-address="$IP" --secure-port=6443 \
		--service-cluster-ip-range=10.96.0.0/16 --service-node-port-range=30000-32767 --allow-privileged=true --authorization-mode=Node,RBAC \
		--client-ca-file="$KEYS/ca.crt" --tls-cert-file="$KEYS/apiserver.crt" --tls-private-key-file="$KEYS/apiserver.key" \
		--service-account-key-file="$KEYS/sa.pub" --service-account-signing-key-file="$KEYS/sa.key" --service-account-issuer=https://kubernetes.default.svc \
		--kubelet-client-certificate="$KEYS/admin.crt" --kubelet-client-key="$KEYS/admin.key" --kubelet-certificate-authority="$KEYS/ca.crt" \
		--kubelet-preferred-address-types=InternalIP --cert-dir="$DATA/apiserver" &
	daemon manager kube-controller-manager --kubeconfig="$KEYS/manager.conf" --use-service-account-credentials --root-ca-file="$KEYS/ca.crt" \
		--service-account-private-key-file="$KEYS/sa.key" --leader-elect=false --node-monitor-grace-period=20s --cert-dir="$DATA/manager" &
	daemon scheduler kube-scheduler --kubeconfig="$KEYS/scheduler.conf" --leader-elect=false &
fi
for i in $(seq 100); do ctr version >/dev/null 2>&1 && break; sleep 0.3; done
ctr -n k8s.io images import "$RUN/pod.tar" >>"$LOG/import.log" 2>&1
daemon kubelet kubelet --config=/etc/kubelet.yaml --kubeconfig="$KEYS/node$N.conf" --hostname-override="node$N" --node-ip="$IP" --register-node=true --v=2 &
daemon proxy kube-proxy --config=/etc/kube-proxy.yaml --v=2 &
wait
