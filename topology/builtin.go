package topology

import (
	"fmt"
	"strings"
	"time"
)

// Info is a built-in lab in one line.
type Info struct {
	Name, Description string
}

type builtin struct {
	name  string
	build func(*Builder) *Builder
}

func builtins() []builtin {
	return []builtin{{"pair", pair}, {"east-west", eastWest}, {"north-south", northSouth}, {"combined", combined}}
}

// Builtins lists the built-in labs.
func Builtins() []Info {
	var all []Info
	for _, b := range builtins() {
		all = append(all, Info{b.name, b.build(New(b.name)).t.Description})
	}
	return all
}

// Builtin returns the built-in lab of that name.
func Builtin(name string) (*Topology, error) {
	var names []string
	for _, b := range builtins() {
		if b.name == name {
			return b.build(New(name)).Topology()
		}
		names = append(names, b.name)
	}
	return nil, fmt.Errorf("there is no built-in lab %s%s; there are %s", quote(name), DidYouMean(name, names), strings.Join(names, ", "))
}

func pair(b *Builder) *Builder {
	return b.Describe("two hosts, a fibre and a tunnel between them").
		Host("a").Host("b").
		Fibre("a", "b").
		Tunnel("ab", "a", "b").
		TCP("a", "b").
		UDP("a", "b", 50*Mbit)
}

func eastWest(b *Builder) *Builder {
	return b.Describe("two hosts whose DPUs are joined by 100 Gbit/s fibre and tunnel their traffic").
		Host("h1").DPU("d1", On("h1")).
		Host("h2").DPU("d2", On("h2")).
		PCIe("h1", "d1").
		Fibre("d1", "d2", 100*Gbit).
		PCIe("h2", "d2").
		Tunnel("ew", "d1", "d2").
		TCP("h1", "h2").
		UDP("h1", "h2", 50*Mbit)
}

// campus is the delay between an access point and the DPU behind it. The papers name none: it is assumed.
const campus = time.Millisecond

// jetson is the client of the papers, a Jetson at the distance that a plan assumes.
func jetson() Station { return Station{Profile: "jetson-ac-2x2-80"} }

func northSouth(b *Builder) *Builder {
	return b.Describe("a Wi-Fi client that tunnels to the DPU of a host").
		Client("client").AP("ap").Host("h1").DPU("d1", On("h1")).
		WiFi("client", "ap", jetson()).
		Ethernet("ap", "d1", 25*Gbit, Delay(campus)).
		PCIe("h1", "d1").
		Tunnel("ns", "client", "d1").
		TCP("client", "h1").
		UDP("client", "h1", 50*Mbit)
}

func combined(b *Builder) *Builder {
	return b.Describe("a Wi-Fi client's request enters at one DPU and is served over fibre by the host of another").
		Client("client").AP("ap").
		Host("h1").DPU("d1", On("h1")).
		Host("h2").DPU("d2", On("h2")).
		WiFi("client", "ap", jetson()).
		Ethernet("ap", "d1", 25*Gbit, Delay(campus)).
		PCIe("h1", "d1").
		Fibre("d1", "d2", 100*Gbit).
		PCIe("h2", "d2").
		Tunnel("ns", "client", "d1").
		Tunnel("ew", "d1", "d2").
		TCP("client", "h2", Via("h1")).
		UDP("client", "h1", 50*Mbit)
}

// Chain is n hosts in a row, each joined to the next by Ethernet. Every link is a network of its own and nobody
// forwards. It is for measuring how fast labs come up; n below 1 is taken as 1.
func Chain(n int) *Topology {
	t := &Topology{Name: "chain", Description: fmt.Sprintf("%d hosts in a row", max(n, 1))}
	for i := range max(n, 1) {
		t.Nodes = append(t.Nodes, Node{Name: fmt.Sprintf("h%d", i+1), Kind: Host})
		if i > 0 {
			t.Links = append(t.Links, Link{Kind: Ethernet, A: End{Node: t.Nodes[i-1].Name}, B: End{Node: t.Nodes[i].Name}})
		}
	}
	return t
}
