package run

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"pqlab/ipsec"
	"pqlab/ipsec/xfrm"
	"pqlab/links"
	"pqlab/report"
	"pqlab/topology"
)

// judgeHardLimit checks that no SA of a tunnel reached its hard limit, beyond which every packet is refused. An exchange
// that takes too long lets it; the switch to new SAs is not to blame. What is left over are the packets for which
// an end had no SA for another reason.
func (r *runner) judgeHardLimit(tunnel string, drops []report.Drops) (homeless uint64) {
	name := fmt.Sprintf("tunnel %s stays below its hard limits", tunnel)
	var refused uint64
	for _, d := range drops {
		refused += d.Reasons["expired"]
		homeless += d.Reasons["no_sa"]
	}
	spent := r.ledger.spentSAs(tunnel)
	if spent[ipsec.ByTime] > 0 { // the SAs go with that limit
		refused, homeless = refused+homeless, 0
	}
	if refused == 0 && len(spent) == 0 {
		r.check(name, true, "every SA was replaced before")
		return homeless
	}
	var reached, flags []string
	for _, limit := range slices.Sorted(maps.Keys(spent)) {
		reached = append(reached, fmt.Sprintf("SAs that reached that of %s: %d", limit, spent[limit]))
		flags = append(flags, "--rekey-"+string(limit))
	}
	if len(flags) == 0 { // events that were missed
		flags = []string{"the limits"}
	}
	r.check(name, false, fmt.Sprintf("%s; packets refused beyond it: %d; exchanges took too long for the rate: raise %s or lower the rate",
		cmp.Or(strings.Join(reached, ", "), "how many SAs reached them is not known"), refused, strings.Join(flags, ", ")))
	return homeless
}

// provoked are the reasons for which the ends refuse packets because the lab's links do to them what they are to do: a
// packet that comes twice is a replay, and one of another SPI or content is a forgery.
func (r *runner) provoked() map[string]bool {
	all := map[string]bool{}
	for _, l := range r.plan.Links {
		if l.Duplication > 0 {
			all["replay"] = true
		}
		if l.Corruption > 0 {
			for _, reason := range []string{"replay", "integrity", "malformed", "unknown_spi"} {
				all[reason] = true
			}
		}
	}
	return all
}

// noteUnreached says so where somebody set a limit of volume to see keys replaced, and the traffic was too little for it.
func (r *runner) noteUnreached(t topology.PlannedTunnel, sas []report.SA) {
	if !volume(t.Rekey) || slices.ContainsFunc(r.result.Rekeys, func(k report.Rekey) bool { return k.Tunnel == t.Name }) {
		return
	}
	var most report.SA
	for _, sa := range sas {
		most.Blocks, most.Bytes, most.Packets = max(most.Blocks, sa.Blocks), max(most.Bytes, sa.Bytes), max(most.Packets, sa.Packets)
	}
	var short []string
	for _, of := range []struct {
		carried, limit uint64
		unit           string
	}{{most.Blocks, t.Rekey.Blocks, "blocks"}, {most.Bytes, t.Rekey.Bytes, "bytes"}, {most.Packets, t.Rekey.Packets, "packets"}} {
		if of.limit > 0 && of.limit != topology.DefaultRekeyBlocks {
			short = append(short, fmt.Sprintf("%d of %d %s", of.carried, of.limit, of.unit))
		}
	}
	r.warn(fmt.Sprintf("tunnel %s: no keys were replaced, for no SA carried more than %s: a longer --duration or lower limits show it", t.Name, strings.Join(short, ", ")))
}

// judgeRekeys tells what a rekey lost from what was lost on the way. A rekey loses a packet for which one of the ends has
// no SA, and the ends count those; what went into a full queue between them is the way's.
func (r *runner) judgeRekeys(homeless uint64, dropped links.Dropped) {
	n := len(r.result.Rekeys)
	if n == 0 {
		return
	}
	var lost uint64
	for _, k := range r.result.Rekeys {
		lost += k.Lost
	}
	r.check("rekeys lose nothing", homeless == 0, fmt.Sprintf("%d rekeys, %d packets without an SA", n, homeless))
	if lost > 0 && homeless == 0 {
		r.result.RekeyNote = fmt.Sprintf("%d packets of the SAs that were replaced did not arrive, lost on the way and not by a rekey: every packet that did found its SA%s", lost, droppedText(lost, dropped))
	}
}

// dropped is what the lab's links dropped until now.
func (r *runner) dropped() (all links.Dropped) {
	for _, p := range r.plan.Links {
		all.Add(r.lab.Link(p.Name).Dropped())
	}
	return all
}

// droppedText says where packets went that did not arrive; nothing if the links dropped none.
func droppedText(lost uint64, d links.Dropped) string {
	var where []string
	for _, w := range []struct {
		packets uint64
		where   string
	}{{d.Full, "in full queues"}, {d.Retries, "that a radio sent in vain"}, {d.Model, "by their models of loss"}} {
		if w.packets > 0 {
			where = append(where, fmt.Sprintf("%d %s", w.packets, w.where))
		}
	}
	if where == nil {
		return ""
	}
	only := ""
	if d.Sum() < lost {
		only = "only "
	}
	return ": links dropped " + only + strings.Join(where, ", ")
}

// spent says whether an SA in use is far beyond a limit at which it should have been replaced.
func spent(c ipsec.Counters, l topology.Limits) bool {
	const slack = 2 // exchanges take their time, and traffic goes on meanwhile
	return l.Blocks > 0 && c.Blocks >= slack*l.Blocks || l.Bytes > 0 && c.Bytes >= slack*l.Bytes ||
		l.Packets > 0 && c.Packets >= slack*l.Packets
}

func (r *runner) countTunnel(ctx context.Context, t topology.PlannedTunnel, out *report.Tunnel) error {
	late := ""
	for _, node := range []string{t.A.Node, t.B.Node} {
		s, err := r.lab.Tunnel(t.Name).State(ctx, node)
		if err != nil {
			return err
		}
		out.SAs = append(out.SAs, saOf(node, "in", s.SPIs.In, s.In), saOf(node, "out", s.SPIs.Out, s.Out))
		if spent(s.In, t.Rekey) || spent(s.Out, t.Rekey) {
			late += fmt.Sprintf(" %s: %d blocks in, %d out", node, s.In.Blocks, s.Out.Blocks)
		}
		out.Drops = append(out.Drops, report.Drops{Node: node, Reasons: dropsOf(s.Drops)})
	}
	r.noteUnreached(t, out.SAs)
	if late == "" {
		r.check(fmt.Sprintf("tunnel %s replaces its keys in time", t.Name), true, fmt.Sprintf("at %d blocks", t.Rekey.Blocks))
	} else {
		r.check(fmt.Sprintf("tunnel %s replaces its keys in time", t.Name), false, fmt.Sprintf("limit %d blocks;%s", t.Rekey.Blocks, late))
	}
	r.judgeRefusals(t.Name, out.Drops)
	return nil
}

// judgeRefusals checks that the ends of a tunnel refused nothing but what links made of its packets on purpose.
func (r *runner) judgeRefusals(tunnel string, drops []report.Drops) {
	var refused, meant []string
	provoked := r.provoked()
	for _, d := range drops {
		for _, bad := range []string{"replay", "integrity", "malformed", "policy", "plaintext", "unknown_spi"} {
			if d.Reasons[bad] == 0 {
				continue
			}
			to := &refused
			if provoked[bad] {
				to = &meant
			}
			*to = append(*to, fmt.Sprintf("%s: %d %s", d.Node, d.Reasons[bad], bad))
		}
	}
	name := fmt.Sprintf("tunnel %s refused nothing", tunnel)
	switch {
	case refused != nil:
		r.check(name, false, strings.Join(refused, " "))
	case meant != nil:
		r.check(name, true, "but what links duplicate or corrupt, as they are to: "+strings.Join(meant, " "))
	default:
		r.check(name, true, "no replay, forgery or plaintext")
	}
}

const statisticsCheck = "xfrm_stat has not risen"

// judgeStatistics checks that the kernel's IPsec refused nothing in the nodes whose tunnels it carried.
func (r *runner) judgeStatistics(rose map[string]xfrm.Statistics) {
	meant := map[string]bool{} // by counter
	for reason, counters := range map[string][]string{
		"replay": {"XfrmInStateSeqError"}, "integrity": {"XfrmInStateProtoError"}, "malformed": {"XfrmInHdrError"},
		"unknown_spi": {"XfrmInNoStates", "XfrmInStateMismatch"},
	} {
		for _, counter := range counters {
			meant[counter] = r.provoked()[reason]
		}
	}
	r.result.XfrmStat = map[string]map[string]uint64{}
	var risen, provoked []string
	for _, node := range slices.Sorted(maps.Keys(rose)) {
		r.result.XfrmStat[node] = rose[node]
		for _, counter := range slices.Sorted(maps.Keys(rose[node])) {
			to := &risen
			if meant[counter] {
				to = &provoked
			}
			*to = append(*to, fmt.Sprintf("node %s: %s by %d", node, counter, rose[node][counter]))
		}
	}
	switch {
	case len(rose) == 0: // nothing to judge
	case risen != nil:
		r.check(statisticsCheck, false, strings.Join(risen, ", "))
	case provoked != nil:
		r.check(statisticsCheck, true, "but for what links duplicate or corrupt, as they are to: "+strings.Join(provoked, ", "))
	default:
		r.check(statisticsCheck, true, "at "+strings.Join(slices.Sorted(maps.Keys(rose)), ", "))
	}
}
