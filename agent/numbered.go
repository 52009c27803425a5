package agent

import "pqlab/ipsec"

// numbered is a dataplane whose SAs begin after a sequence number, as if they had carried as many packets.
type numbered struct {
	ipsec.Dataplane
	seq uint64
}

func (n *numbered) AddInbound(tunnel string, sa *ipsec.SA) error {
	sa.Seq = n.seq
	return n.Dataplane.AddInbound(tunnel, sa)
}

func (n *numbered) SetOutbound(tunnel string, sa *ipsec.SA) error {
	sa.Seq = n.seq
	return n.Dataplane.SetOutbound(tunnel, sa)
}
