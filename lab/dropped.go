package lab

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"pqlab/ipsec"
)

// Dropped is a place within a node where packets had no room, because what empties it was not run in time. No link has
// seen these packets, or has them among its own.
type Dropped struct {
	Node, Place string
	Packets     uint64 // since the node is there
}

// Dropped gives the places of all nodes that have dropped packets. What found no room in the interface of a wire is the
// link's (links.Wire.Missed), and what found none in the socket of a flow's sink the flow's.
func (l *Lab) Dropped() ([]Dropped, error) {
	wired := map[[2]string]bool{} // by node and interface
	for _, p := range l.Plan.Links {
		if l.links[p.Name].Driven() {
			wired[[2]string{p.A.Node, p.A.Interface}], wired[[2]string{p.B.Node, p.B.Interface}] = true, true
		}
	}
	var all []Dropped
	for _, p := range l.Plan.Nodes {
		n := l.nodes[p.Name]
		found, err := n.dropped(func(iface string) bool { return !wired[[2]string{p.Name, iface}] })
		if err != nil {
			return nil, fmt.Errorf("node %s: what it dropped: %w", p.Name, err)
		}
		all = append(all, found...)
	}
	return all, nil
}

func (n *Node) dropped(counts func(iface string) bool) (all []Dropped, err error) {
	add := func(place string, packets uint64) {
		if packets > 0 {
			all = append(all, Dropped{n.Plan.Name, place, packets})
		}
	}
	h, err := n.ns.Netlink()
	if err != nil {
		return nil, err
	}
	interfaces, err := h.LinkList()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		if a := i.Attrs(); a.Statistics != nil && counts(a.Name) {
			add("the queue of interface "+a.Name, a.Statistics.TxDropped)
		}
	}
	for _, s := range []struct {
		files []string
		port  uint16 // raw sockets have their protocol in its place
		place string
	}{
		{[]string{"udp", "udp6"}, ipsec.UDPPort, fmt.Sprintf("the socket of UDP port %d", ipsec.UDPPort)},
		{[]string{"raw", "raw6"}, unix.IPPROTO_ESP, "the socket of IP protocol 50"},
	} {
		var sum uint64
		for _, file := range s.files {
			var table []byte
			err := n.ns.Do(func() (err error) {
				table, err = os.ReadFile("/proc/thread-self/net/" + file)
				return err
			})
			if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
				continue
			}
			if err != nil {
				return nil, err
			}
			packets, err := socketDrops(table, s.port)
			if err != nil {
				return nil, fmt.Errorf("/proc/net/%s: %w", file, err)
			}
			sum += packets
		}
		add(s.place, sum)
	}
	return all, nil
}

// socketDrops sums the drops of the sockets of a port in a table like /proc/net/udp: the second field is the address with the
// port, the last the drops, of which its first line tells.
func socketDrops(table []byte, port uint16) (sum uint64, err error) {
	want := fmt.Sprintf(":%04X", port)
	lines := bufio.NewScanner(bytes.NewReader(table))
	for first := true; lines.Scan(); first = false {
		fields := strings.Fields(lines.Text())
		if first {
			if !slices.Contains(fields, "drops") {
				return 0, fmt.Errorf("does not count drops: %q", lines.Text())
			}
			continue
		}
		if len(fields) < 3 || !strings.HasSuffix(fields[1], want) {
			continue
		}
		n, err := strconv.ParseUint(fields[len(fields)-1], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, lines.Err()
}
