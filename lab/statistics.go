package lab

import (
	"fmt"

	"pqlab/ipsec/xfrm"
	"pqlab/probe"
)

// XfrmStatistics is /proc/net/xfrm_stat of the node: what the kernel's IPsec has refused in it, by the kernel's reasons, each
// with how far it has risen since the node is there. It is empty where nothing was refused. The error is
// xfrm.ErrNoStatistics where the kernel does not count.
func (n *Node) XfrmStatistics() (rose xfrm.Statistics, err error) {
	err = n.ns.Do(func() error {
		s, err := xfrm.ReadStatistics()
		rose = s.Since(nil) // a new namespace counts from 0
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("node %s: %w", n.Plan.Name, err)
	}
	return rose, nil
}

// XfrmStatistics gives those of every node whose tunnels the kernel carries, by its name. Where one is not empty something
// is wrong, unless it was provoked. A program that wants to know what rose meanwhile compares by Statistics.Since.
//
// Other nodes are left out: what their kernel counts says nothing of their tunnels. One that has ESP counts XfrmInNoStates
// for each packet of protocol 50 that the user-space gateway takes, because it looks for an SA of its own.
func (l *Lab) XfrmStatistics() (map[string]xfrm.Statistics, error) {
	all := map[string]xfrm.Statistics{}
	for name, plane := range l.planes {
		if plane.Name != probe.XFRM {
			continue
		}
		s, err := l.nodes[name].XfrmStatistics()
		if err != nil {
			return nil, err
		}
		all[name] = s
	}
	return all, nil
}
