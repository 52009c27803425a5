// Package topology describes a lab: its nodes, the links between them, the tunnels over them and the traffic
// through them. A Topology is what a user writes (in Go with New, or in YAML with Load); a Plan is the same lab with
// every address, route and default filled in, and is what the lab makes real.
package topology

import (
	"net/netip"
	"time"
)

// Topology is a lab as its author describes it. What is left zero is filled in by Plan.
type Topology struct {
	Name        string
	Description string
	Seed        uint64 // of every random choice a link makes; 0 means 1
	Nodes       []Node
	Links       []Link
	Tunnels     []Tunnel
	Traffic     []Flow

	Verify    bool      // each shaped link is measured before the lab is used, and has to be within Tolerance
	Tolerance Tolerance // of Verify

	// Dir is where the files that it names are; empty means the working directory. Load sets it to the directory of the
	// topology's own file.
	Dir string

	at []LinkPosition // of Links, if Load or a Builder knows
}

// NodeKind says what a node is, and so what it does with packets that are not for itself.
type NodeKind string

const (
	Client NodeKind = "client" // an end system; does not forward
	Host   NodeKind = "host"   // a server; does not forward; may own DPUs
	DPU    NodeKind = "dpu"    // forwards between its host (PCIe) and the network; where tunnels usually end
	AP     NodeKind = "ap"     // a Wi-Fi access point: bridges its links
	Switch NodeKind = "switch" // an Ethernet switch: bridges its links
)

// Node is one machine of the lab.
type Node struct {
	Name string
	Kind NodeKind
	Host string // of a DPU: the host it is plugged into
	// Certificate is a PEM file with the node's TLS certificate, what leads up to the CA, and its private key. Empty: the
	// node makes a self-signed one, which its peers pin.
	Certificate string
	Profile     string // device profile that caps its CPU ("jetson-nano"); empty means no cap
	// Inner are addresses (/32, /128) of a client or host on its loopback interface. They are reached only through
	// tunnels that end at the node, which protect them instead of the addresses of its links. Without them Plan
	// allocates one for each family where a tunnel joins two clients or hosts, because there the addresses of the
	// links carry the ESP packets, and a policy that matched its own ESP packets would swallow them.
	Inner []netip.Prefix
	WiFi  *Cell // of an access point; nil means the zero Cell
}

// LinkKind says what a link is made of; it decides defaults (rate, delay, MTU).
type LinkKind string

const (
	Ethernet LinkKind = "ethernet"
	Fibre    LinkKind = "fibre" // Length decides the delay
	PCIe     LinkKind = "pcie"  // between a host and its DPU
	WiFi     LinkKind = "wifi"
)

// Link joins two nodes.
type Link struct {
	Name string // unique; if empty, Plan names it after its ends ("h1-d1")
	Kind LinkKind
	A, B End

	Shape // of each direction by itself

	Length      float64  // metres; of a fibre: adds propagation delay (group index 1.468)
	Attenuation float64  // dB/km, of a fibre; 0 means 0.2. It is kept and does nothing to packets
	Generation  int      // of PCI Express, 1 to 6; with Lanes it gives a pcie link that has no Rate one
	Lanes       int      // of PCI Express: 1, 2, 4, 8, 16
	WiFi        *Station // of a Wi-Fi link: makes it share the air; nil: it is shaped as any other

	MTU  int    // bytes of IP packet; 0 means the default of the kind
	Seed uint64 // of this link's randomness; 0 means derived from the topology's seed and the link's name
}

// End is where a link enters a node.
type End struct {
	Node      string
	Interface string         // at most 15 bytes; if empty, Plan names it ("eth0", "pcie0", "fib0", "wlan0")
	Addresses []netip.Prefix // with the segment's prefix length; Plan allocates for a family that is not here
}

// Rate is a bit rate in bit/s. In text it has a unit: "10Mbit/s", "2.5Gbit/s".
type Rate uint64

// Tunnel is an ESP tunnel between two nodes, keyed by the post-quantum exchange, or to compare with that by another daemon.
type Tunnel struct {
	Name string
	A, B TunnelEnd // A starts the first exchange

	// Keying is "pqlab" (default) or "strongswan": classical IKEv2 by strongSwan's charon in both nodes, over the kernel's
	// IPsec. Then Suite, Combiner, Identity, Mutual, TLSGroups and CA stay empty.
	Keying string

	Suite         string        // one of Signatures(), "+", one of KEMs(); default "mldsa65+mlkem768"
	Combiner      string        // "xor" (default) or "hardened"
	Identity      string        // "fresh" (default): a signature key for each exchange; "pinned": a long-lived one
	Mutual        bool          // both ends sign, not only the responder
	TLSGroups     []string      // TLS groups offered, one of TLSGroups(); default X25519 alone
	CA            string        // PEM file whose certificates are trusted in place of pinned ones; both nodes need a Certificate
	Rekey         Limits        // zero fields mean the defaults
	Encapsulation string        // "udp" (RFC 3948, default) or "esp" (protocol 50)
	Dataplane     string        // "auto" (default), "gateway", "xfrm", "offload"
	Family        string        // of the outer addresses: "ipv4" (default) or "ipv6"
	Deadline      time.Duration // of each step of the exchange; 0 means 5 s
}

// TunnelEnd is one end of a tunnel.
type TunnelEnd struct {
	Node string
	// Subnets are protected behind this end. If empty: the subnets of a DPU's PCIe links; the inner addresses of a
	// client or host that has them, else those of its links.
	Subnets []netip.Prefix
}

// Limits are the amounts after which a tunnel's keys are replaced. The defaults of Time and Blocks are those of Lawo
// et al., whose testbed pqlab reproduces.
type Limits struct {
	Time    time.Duration // default 10 min, at least 1 s
	Blocks  uint64        // AES blocks, counted per packet and rounded up; default 2^30, at least 1000
	Bytes   uint64        // 0: no limit; at least 16000
	Packets uint64        // 0: no limit; at least 100
}

// Tolerance is how far a link may be off what it is asked for. Zero fields mean the defaults.
type Tolerance struct {
	Rate       float64       // share of the rate; default 0.02
	Delay      time.Duration // of the median delay, which is never shorter; default 1 ms
	Jitter     time.Duration // of the quartiles of the delay, about the median; default 1 ms
	Tail       time.Duration // of the 90th and the 99th percentile of the delay, about the median; default 10 ms
	Confidence float64       // of the intervals of what was seen; only what is out of tolerance for all of them is refused; default 0.9999
}

// Flow is traffic that pqlab run sends.
type Flow struct {
	Name      string        // unique; if empty, Plan names it after its ends ("h1-h2-tcp")
	From, To  string        // nodes
	Via       []string      // nodes that relay the request in between at the application (TCP only)
	Proto     string        // "tcp" (default) or "udp"
	Streams   int           // default 1
	Rate      Rate          // of all streams together; 0: as fast as it goes (TCP), 100 Mbit/s (UDP)
	FrameSize int           // bytes of IP packet (UDP); 0: the largest that fits the path
	Family    string        // "ipv4" (default) or "ipv6"
	Duration  time.Duration // 0: what the run says
}
