package links

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"pqlab/internal/netns"
	"pqlab/topology"
)

// rawQdisc is a queueing discipline whose options the netlink library does not know, or not all of them.
type rawQdisc struct {
	netlink.QdiscAttrs
	kind    string
	options []byte // payload of TCA_OPTIONS
}

func (q *rawQdisc) Attrs() *netlink.QdiscAttrs { return &q.QdiscAttrs }
func (q *rawQdisc) Type() string               { return q.kind }

// request sends q of the interface to the kernel, as RTM_NEWQDISC or RTM_DELQDISC.
func request(ns *netns.Namespace, index, kind, flags int, q netlink.Qdisc) error {
	attrs := q.Attrs()
	attrs.LinkIndex = index
	raw, ok := q.(*rawQdisc)
	if !ok {
		h, err := ns.Netlink()
		if err != nil {
			return err
		}
		switch {
		case kind == unix.RTM_DELQDISC:
			return h.QdiscDel(q)
		case flags&unix.NLM_F_CREATE != 0:
			return h.QdiscAdd(q)
		}
		return h.QdiscChange(q)
	}
	message := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	message.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index), Handle: attrs.Handle, Parent: attrs.Parent})
	message.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated(raw.kind)))
	message.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, raw.options))
	return ns.Do(func() error { // whose socket the request opens
		_, err := message.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
}

// readOptions gives the options of an interface's queueing disciplines, by handle.
func readOptions(ns *netns.Namespace, index int) (map[uint32][]byte, error) {
	message := nl.NewNetlinkRequest(unix.RTM_GETQDISC, unix.NLM_F_DUMP)
	message.AddData(&nl.TcMsg{Family: unix.AF_UNSPEC, Ifindex: int32(index)})
	var answers [][]byte
	if err := ns.Do(func() (err error) {
		answers, err = message.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWQDISC)
		return err
	}); err != nil {
		return nil, err
	}
	options := map[uint32][]byte{}
	for _, answer := range answers {
		msg := nl.DeserializeTcMsg(answer)
		if int(msg.Ifindex) != index {
			continue
		}
		attrs, err := nl.ParseRouteAttr(answer[msg.Len():])
		if err != nil {
			return nil, err
		}
		for _, a := range attrs {
			if a.Attr.Type == nl.TCA_OPTIONS {
				options[msg.Handle] = a.Value
			}
		}
	}
	return options, nil
}

// netemAttributes are those behind struct tc_netem_qopt, by type.
func netemAttributes(options []byte) (map[int][]byte, error) {
	if len(options) < nl.SizeofTcNetemQopt {
		return nil, fmt.Errorf("netem: options of %d bytes: %w", len(options), unix.EPROTO)
	}
	attrs, err := nl.ParseRouteAttr(options[nl.SizeofTcNetemQopt:])
	if err != nil {
		return nil, err
	}
	values := map[int][]byte{}
	for _, a := range attrs {
		values[int(a.Attr.Type&^unix.NLA_F_NESTED)] = a.Value
	}
	return values, nil
}

// What the library has no name for (include/uapi/linux/pkt_sched.h).
const (
	netemDelayDist = 2
	netemLoss      = 5
	netemRate      = 6
	netemRate64    = 8
	netemLatency64 = 10
	netemJitter64  = 11
	netemSeed      = 14 // from Linux 6.6; older kernels ignore it

	netemLossGE = 2 // within netemLoss
)

// atOnce is a rate so high that a frame takes no time, in bytes per second.
const atOnce = 1 << 62

// netemOptions says everything that netem does (struct tc_netem_qopt and its attributes), also what it does not do:
// the kernel keeps what a change leaves out. Three things are meant otherwise than their names say:
//
//   - A rate, here without effect on speed, makes netem keep packets in order: each leaves after the one before it.
//   - Correlated loss is a Gilbert-Elliott chain. netem's own correlation makes the share of lost packets another one.
//   - A uniform delay has a table like the others: a table, once set, cannot be taken back.
func netemOptions(s topology.Shape, spread spread, limit uint32, seed uint64) []byte {
	chain := s.Chain()
	random := uint32(0) // share of loss that is independent
	if s.LossCorrelation == 0 && s.GilbertElliott == (topology.GilbertElliott{}) {
		random = share(s.Loss)
	}
	gap := uint32(0)
	if s.Reordering > 0 {
		gap = 1 // each packet may be the one that is not delayed
	}
	// Delays are in the attributes, in nanoseconds.
	b := words(0, limit, random, gap, share(s.Duplication), 0)
	attr := func(kind int, payload []byte) { b = append(b, nl.NewRtAttr(kind, payload).Serialize()...) }
	attr(nl.TCA_NETEM_CORR, words(0, 0, 0))
	if spread.sigma > 0 {
		table := make([]byte, 0, 2*len(spread.table))
		for _, v := range spread.table {
			table = binary.NativeEndian.AppendUint16(table, uint16(v))
		}
		attr(netemDelayDist, table)
	}
	attr(nl.TCA_NETEM_REORDER, words(share(s.Reordering), 0))
	attr(nl.TCA_NETEM_CORRUPT, words(share(s.Corruption), 0))
	if random == 0 && s.Chain() != (topology.GilbertElliott{}) {
		model := words(below(chain.P), below(chain.R), math.MaxUint32-below(chain.Bad), below(chain.Good))
		attr(netemLoss, nl.NewRtAttr(netemLossGE, model).Serialize())
	}
	if s.Unordered {
		attr(netemRate, words(0, 0, 0, 0))
	} else {
		attr(netemRate, words(math.MaxUint32, 0, 0, 0))
		attr(netemRate64, long(atOnce))
	}
	attr(netemLatency64, long(uint64(s.Delay)))
	attr(netemJitter64, long(uint64(spread.sigma)))
	attr(netemSeed, long(seed))
	return b
}

// fifoOptions is struct tc_fifo_qopt.
func fifoOptions(bytes uint32) []byte { return words(bytes) }

func words(values ...uint32) []byte {
	var b []byte
	for _, v := range values {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

func long(v uint64) []byte { return binary.NativeEndian.AppendUint64(nil, v) }

// below is p as netem's chain takes it: an event happens if a random word is below it.
func below(p float64) uint32 { return uint32(min(math.Round(p*(1<<32)), math.MaxUint32)) }

// share is p as the rest of netem takes it: an event happens if a random word is at most that, and never if it is 0.
func share(p float64) uint32 {
	if p == 0 {
		return 0
	}
	return uint32(max(math.Round(p*(1<<32))-1, 1))
}
