package probe

import "pqlab/ipsec/xfrm"

// Names of the capabilities.
const (
	kernel            = "kernel"
	userNamespaces    = "user namespaces"
	networkNamespaces = "network namespaces"
	ipv6              = "ipv6"
	veth              = "veth"
	bridge            = "bridge"
	tun               = "tun"
	packet            = "packet"
	udpOffload        = "udp offload"
	tbf               = "tbf"
	netem             = "netem"
	esp               = "esp"
	xfrmPolicies      = "xfrm policies"
	xfrmInterface     = "xfrm interface"
	nfTables          = "nftables"
	cpuLimits         = "cpu limits"
	aes               = "aes"
	memory            = "memory"
	kvm               = "kvm"
	qemu              = "qemu"
	guestKernel       = "guest kernel"
	strongSwan        = "strongswan"
)

// noGuess is of what the xfrm dataplane takes, where a probe failed.
const noGuess = "--dataplane auto does not guess; --dataplane gateway does without"

// table lists everything that is tried, in the order in which a person wants to read it.
func table() []trial {
	return []trial{{
		name: kernel,
		how:  "uname",
		use:  "named in every result",
		try:  tryKernel,
	}, {
		name:    userNamespaces,
		how:     "started a process in a new one",
		needs:   "CONFIG_USER_NS, and a system that lets this user have them (user.max_user_namespaces, kernel.unprivileged_userns_clone, AppArmor)",
		instead: "root needs none",
		use:     "an ordinary user's labs are inside one",
		without: "labs need root",
		rights:  true,
		try:     tryUserNamespaces,
	}, {
		name:    networkNamespaces,
		how:     "made one and brought its lo up",
		needs:   "CONFIG_NET_NS, and root or user namespaces",
		instead: "no lab can be made here",
		use:     "every node is one",
		rights:  true,
		try:     tryNetworkNamespaces,
	}, {
		name:    ipv6,
		how:     "gave an address to lo",
		needs:   "CONFIG_IPV6, and no ipv6.disable=1 on the kernel's command line",
		instead: "labs with IPv6 addresses cannot be made",
		use:     "every link has both families",
		try:     tryIPv6,
	}, {
		name:    veth,
		how:     "made a pair",
		needs:   "CONFIG_VETH (module veth)",
		instead: "no lab can be made here",
		use:     "every link is a pair",
		try:     tryVeth,
	}, {
		name:    bridge,
		how:     "made one",
		needs:   "CONFIG_BRIDGE (module bridge)",
		instead: "labs without access points and switches need none",
		use:     "access points and switches",
		try:     tryBridge,
	}, {
		name:    tun,
		how:     "made a device with virtio headers and segmentation offload",
		needs:   "CONFIG_TUN (module tun) and a /dev/net/tun that this user may open; as root: modprobe tun && chmod 0666 /dev/net/tun",
		instead: "packet does the same for the gateway dataplane, and nothing for wires",
		use:     "inner port of the gateway dataplane, and links that are wires",
		without: "the gateway dataplane uses packet; no link is a wire",
		rights:  true,
		try:     tryPort(tun),
	}, {
		name:    packet,
		how:     "bound an AF_PACKET socket with virtio headers to a veth pair",
		needs:   "CONFIG_PACKET (module af_packet) and CAP_NET_RAW",
		instead: "tun does the same",
		use:     "inner port of the gateway dataplane where there is no tun",
		without: "the gateway dataplane needs tun",
		rights:  true,
		try:     tryPort(packet),
	}, {
		name:    udpOffload,
		how:     "sent three datagrams as one over lo (UDP_SEGMENT) and received them (UDP_GRO)",
		needs:   "Linux 5.0",
		instead: "UDP-encapsulated ESP needs it",
		use:     "ESP in UDP leaves and arrives many packets at a time",
		try:     tryUDPOffload,
	}, {
		name:    tbf,
		how:     "put one on lo",
		needs:   "CONFIG_NET_SCH_TBF (module sch_tbf)",
		instead: "--shaper=none runs labs with unlimited rates",
		use:     "rates of links",
		try:     tryTBF,
	}, {
		name:    netem,
		how:     "put one on lo",
		needs:   "CONFIG_NET_SCH_NETEM (module sch_netem)",
		instead: "the wire shaper does the same in user space, over tun; pqlab vm -- has it; --shaper=none runs labs without delay, jitter and loss",
		use:     "delay, jitter, loss, duplication, reordering and corruption of links",
		without: "links with a delay, jitter or losses are wires, in user space, and need tun",
		try:     tryNetem,
	}, {
		name:    esp,
		how:     "added SAs of both families with rfc4106(gcm(aes)), 256-bit key, extended sequence numbers",
		needs:   xfrm.Needs,
		instead: "pqlab vm -- has it; the gateway dataplane does ESP in user space",
		use:     "tunnels use the kernel's IPsec: the xfrm dataplane",
		without: "tunnels use the gateway dataplane",
		unsure:  noGuess,
		try:     tryESP,
	}, {
		name:    xfrmPolicies,
		how:     "added one",
		needs:   "CONFIG_XFRM_USER (module xfrm_user)",
		instead: "the gateway dataplane needs none",
		use:     "the xfrm dataplane says by them what is to be protected",
		without: "tunnels use the gateway dataplane",
		unsure:  noGuess,
		try:     tryXFRMPolicies,
	}, {
		name:    xfrmInterface,
		how:     "made one",
		needs:   "CONFIG_XFRM_INTERFACE (module xfrm_interface)",
		instead: "the xfrm dataplane does with policies alone, but where super-packets go through protocol 50",
		use:     "the xfrm dataplane routes protected packets into one",
		without: "the xfrm dataplane has policies alone",
		try:     tryXFRMInterface,
	}, {
		name:    nfTables,
		how:     "made a table with a chain",
		needs:   "CONFIG_NF_TABLES_INET (module nf_tables)",
		instead: "a gateway cannot refuse plaintext without it, and does not start",
		use:     "refuses plaintext between protected subnets",
		unsure:  noGuess,
		try:     tryNFTables,
	}, {
		name:    cpuLimits,
		how:     "made a cgroup with a CPU quota",
		needs:   "root, or a delegated cgroup with the cpu controller (systemd-run --user --scope -p Delegate=yes)",
		instead: "device profiles are not enforced, and results say so",
		use:     "device profiles; CPU time of nodes with one",
		rights:  true,
		try:     tryCPULimits,
	}, {
		name:    aes,
		how:     "asked the CPU",
		needs:   "AES-NI and PCLMULQDQ, or the AES and PMULL extensions of arm64",
		instead: "AES-GCM is computed without, many times slower",
		use:     "AES-GCM of the gateway dataplane",
		try:     tryAES,
	}, {
		name: memory,
		how:  "read /proc/meminfo",
		use:  "shared by all nodes: pqlab limits CPU, not memory",
		try:  tryMemory,
	}, {
		name:    kvm,
		how:     "opened it, and asked what the first guest has found out",
		needs:   "CONFIG_KVM, virtualization switched on in the firmware, and a /dev/kvm that this user may open",
		instead: "guests run without it, under TCG, many times slower",
		use:     "guest kernels run under it if it boots them",
		without: "guest kernels run under TCG, QEMU's emulation, many times slower",
		rights:  true,
		try:     tryKVM,
	}, {
		name:    qemu,
		how:     "looked for it in PATH",
		needs:   "an x86-64 machine and QEMU (as root on Debian: apt-get install --no-install-recommends qemu-system-x86)",
		instead: "what runs on this machine's own kernel needs no guest",
		use:     "guest kernels: pqlab vm, pqlab test --mode vm",
		without: "no guest kernels",
		try:     tryQEMU,
	}, {
		name:    guestKernel,
		how:     "looked into the cache of pqlab vm fetch",
		needs:   "pqlab vm fetch, once",
		instead: "--kernel FILE and --kernel host work without",
		use:     "what guests boot, with IPsec and netem, where --kernel names no other",
		without: "guests need a --kernel",
		try:     tryGuestKernel,
	}, {
		name:    strongSwan,
		how:     "looked into the cache of pqlab vm fetch --strongswan, and for charon-systemd in PATH",
		needs:   "pqlab vm fetch --strongswan, once, or strongSwan's charon-systemd with its vici and openssl plugins",
		instead: "keying pqlab does without",
		use:     "keys tunnels by classical IKEv2 (keying strongswan) where the kernel has esp and an xfrm interface, as guests do",
		without: "no tunnels with keying strongswan",
		try:     tryStrongswan,
	}}
}
