package topology

import "net/netip"

// Plan is a Topology made concrete: every name, address, route, MTU and default that the author left out is there.
// It is valid: lab makes it real without further checks of its text.
type Plan struct {
	Name        string
	Description string
	Seed        uint64
	Nodes       []PlannedNode
	Links       []PlannedLink
	Tunnels     []PlannedTunnel
	Traffic     []PlannedFlow
	Verify      bool
	Tolerance   Tolerance // filled in if Verify is set
	Notes       []string  // where the plan gives less than the author asked for, for people
}

// PlannedNode is a node with its interfaces and routes.
type PlannedNode struct {
	Node
	Bridge     bool // joins its interfaces in a bridge and has no addresses (AP, Switch)
	Forward    bool // forwards IP (DPU)
	Interfaces []Interface
	Routes     []Route
	Services   bool // an agent runs in it: a tunnel or a flow ends or is relayed here
}

// Interface is a link's end in a node, or the loopback interface "lo" of a node that has inner addresses.
type Interface struct {
	Name      string
	Link      string // name of its link; empty for "lo"
	Addresses []netip.Prefix
	MTU       int // bytes of IP packet; 0 for "lo": leave it as it is
}

// Route sends Dst to the neighbour Via. A default route has a Dst of zero bits.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr
	Src netip.Addr // preferred source; not valid (the zero Addr) leaves the choice to the kernel
}

// PlannedLink is a link with its name, interfaces, MTU, delay (Length included) and seed filled in.
type PlannedLink struct {
	Link
	At   LinkPosition `json:"-"`
	Cell *PlannedCell // of a Wi-Fi link with a Station: the same of all links at the access point; else nil
}

// LinkPosition is where a link was written, and its rate, or what gives it one. They are zero if nobody knows.
type LinkPosition struct {
	Link, Rate Position
}

// PlannedTunnel is a tunnel with its defaults and addresses filled in.
type PlannedTunnel struct {
	Tunnel                    // Subnets of both ends filled in
	OuterA, OuterB netip.Addr // addresses of the ESP packets, of the tunnel's Family
	MTU            int        // the smallest MTU on the path between the ends, bytes of IP packet
	Links          []string   // links that the ESP packets pass, A to B, those below another tunnel included
}

// PlannedFlow is a flow with its defaults and the addresses of its ends filled in.
type PlannedFlow struct {
	Flow
	Src, Dst netip.Addr
	Hops     []netip.Addr // addresses of the Via nodes, in order
	Tunnels  []string     // names of the tunnels it passes, in order; empty: it goes in plaintext
	Links    []string     `json:"-"` // names of the links it passes, in order, each once
}
