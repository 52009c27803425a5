package run

import (
	"maps"
	"strings"
	"testing"
	"time"

	"pqlab/agent"
	"pqlab/ipsec"
	"pqlab/ipsec/xfrm"
	"pqlab/links"
	"pqlab/report"
	"pqlab/topology"
)

// Packets that are refused beyond a hard limit are not a rekey's loss, and packets without an SA are.
func TestJudgeLoss(t *testing.T) {
	t.Parallel()
	expired := func(node string, limit ipsec.Trigger, in, out uint32) agent.Event {
		return agent.Event{Node: node, Tunnel: "t", Kind: ipsec.Expired, Trigger: limit, Old: ipsec.SPIPair{In: in, Out: out}}
	}
	for name, tt := range map[string]struct {
		events         []agent.Event
		drops          map[string]uint64 // at one end
		below, nothing bool              // the hard limits; lost by rekeys
		words          []string
	}{
		"none":            {nil, nil, true, true, nil},
		"no SA":           {nil, map[string]uint64{"no_sa": 3}, true, false, nil},
		"refused":         {[]agent.Event{expired("a", ipsec.ByPackets, 0, 300)}, map[string]uint64{"expired": 7}, false, true, []string{"SAs that reached", ": 1;", ": 7;", "--rekey-packets"}},
		"refused, untold": {nil, map[string]uint64{"expired": 7}, false, true, []string{": 7;"}},
		"both": {
			[]agent.Event{expired("a", ipsec.ByBytes, 0, 300), expired("b", ipsec.ByBytes, 300, 0), expired("b", ipsec.ByBytes, 301, 0)},
			map[string]uint64{"expired": 7, "no_sa": 1}, false, false, []string{"SAs that reached", ": 2;", ": 7;", "--rekey-bytes"},
		},
		"reached, none refused": {[]agent.Event{expired("a", ipsec.ByBlocks, 300, 0)}, nil, false, true, []string{"SAs that reached", ": 1;", ": 0;", "--rekey-blocks"}},
		"time, which drops the SAs": {
			[]agent.Event{expired("a", ipsec.ByTime, 300, 301)}, map[string]uint64{"no_sa": 9}, false, true, []string{"SAs that reached", ": 2;", ": 9;", "--rekey-time"},
		},
		"another tunnel's": {
			[]agent.Event{{Node: "a", Tunnel: "other", Kind: ipsec.Expired, Trigger: ipsec.ByTime, Old: ipsec.SPIPair{In: 300}}},
			map[string]uint64{"no_sa": 9}, true, false, nil,
		},
	} {
		r := &runner{plan: pairPlan(), ledger: newLedger(pairPlan()), result: report.Result{Rekeys: make([]report.Rekey, 2)}}
		for _, e := range tt.events {
			r.ledger.note(e)
		}
		if got := r.ledger.failures(); len(got) > 0 {
			t.Errorf("%s: a limit is no failed exchange: %q", name, got)
		}
		r.judgeRekeys(r.judgeHardLimit("t", []report.Drops{{Node: "a", Reasons: tt.drops}, {Node: "b"}}), links.Dropped{})
		if len(r.result.Checks) != 2 || r.result.Checks[0].OK != tt.below || r.result.Checks[1].OK != tt.nothing {
			t.Errorf("%s: %+v", name, r.result.Checks)
			continue
		}
		for _, w := range tt.words {
			if !strings.Contains(r.result.Checks[0].Detail, w) {
				t.Errorf("%s: %q does not say %q", name, r.result.Checks[0].Detail, w)
			}
		}
	}
}

// Where packets of replaced SAs went is told where links dropped some, and where they dropped none the note is as it was.
func TestJudgeRekeysDropped(t *testing.T) {
	t.Parallel()
	warning := func(d links.Dropped) string {
		r := &runner{plan: pairPlan(), result: report.Result{Rekeys: []report.Rekey{{Lost: 200}, {Lost: 22}}}}
		if r.judgeRekeys(0, d); len(r.result.Warnings) != 0 || r.result.RekeyNote == "" {
			t.Fatalf("%+v: %q, %q", d, r.result.Warnings, r.result.RekeyNote)
		}
		return r.result.RekeyNote
	}
	bare := warning(links.Dropped{})
	for text, d := range map[string]links.Dropped{
		"":                                   {},
		": links dropped 222 in full queues": {Full: 222},
		": links dropped only 221 in full queues":                                     {Full: 221},
		": links dropped 300 in full queues, 4 that a radio sent in vain":             {Full: 300, Retries: 4},
		": links dropped only 4 that a radio sent in vain, 5 by their models of loss": {Retries: 4, Model: 5},
	} {
		if got := warning(d); got != bare+text {
			t.Errorf("%+v: %q", d, got)
		}
	}
}

// An SA that goes on far beyond its limit was not replaced, whatever the rekeys that were told.
func TestSpent(t *testing.T) {
	t.Parallel()
	limits := topology.Limits{Blocks: 1000, Bytes: 16000, Packets: 100}
	for _, c := range []struct {
		used ipsec.Counters
		want bool
	}{
		{ipsec.Counters{}, false},
		{ipsec.Counters{Blocks: 1100, Bytes: 17000, Packets: 110}, false},
		{ipsec.Counters{Blocks: 2000}, true},
		{ipsec.Counters{Bytes: 32000}, true},
		{ipsec.Counters{Packets: 200}, true},
	} {
		if got := spent(c.used, limits); got != c.want {
			t.Errorf("%+v: %v", c.used, got)
		}
		if spent(c.used, topology.Limits{}) {
			t.Errorf("%+v: spent without limits", c.used)
		}
	}
}

// Each counter that rose is named, with its node and by how much, and fails the run. A gateway's is not judged.
func TestJudgeStatistics(t *testing.T) {
	t.Parallel()
	duplicates, corrupts := topology.Shape{Duplication: 0.1}, topology.Shape{Corruption: 0.1}
	for name, tt := range map[string]struct {
		rose  map[string]xfrm.Statistics
		shape topology.Shape
		judge bool // there is something to judge
		ok    bool
		words []string
	}{
		"gateways": {nil, topology.Shape{}, false, true, nil},
		"clean":    {map[string]xfrm.Statistics{"a": {}, "b": {}}, topology.Shape{}, true, true, []string{"a", "b"}},
		"one":      {map[string]xfrm.Statistics{"a": {}, "b": {"XfrmInNoStates": 7}}, topology.Shape{}, true, false, []string{"b: XfrmInNoStates by 7"}},
		"several": {
			map[string]xfrm.Statistics{"a": {"XfrmInStateSeqError": 1}, "b": {"XfrmInNoStates": 7, "XfrmOutNoStates": 2}}, topology.Shape{}, true, false,
			[]string{"a: XfrmInStateSeqError by 1", "b: XfrmInNoStates by 7", "b: XfrmOutNoStates by 2"},
		},
		"duplicated":           {map[string]xfrm.Statistics{"a": {"XfrmInStateSeqError": 1}}, duplicates, true, true, []string{"a: XfrmInStateSeqError by 1"}},
		"duplicated, and more": {map[string]xfrm.Statistics{"a": {"XfrmInStateSeqError": 1, "XfrmInStateProtoError": 2}}, duplicates, true, false, []string{"a: XfrmInStateProtoError by 2"}},
		"corrupted":            {map[string]xfrm.Statistics{"a": {"XfrmInNoStates": 1, "XfrmInStateProtoError": 2}}, corrupts, true, true, []string{"a: XfrmInNoStates by 1"}},
		"corrupted, and more":  {map[string]xfrm.Statistics{"a": {"XfrmInStateProtoError": 2, "XfrmOutNoStates": 3}}, corrupts, true, false, []string{"a: XfrmOutNoStates by 3"}},
		"lossy":                {map[string]xfrm.Statistics{"a": {"XfrmInStateSeqError": 1}}, topology.Shape{Loss: 0.1}, true, false, []string{"a: XfrmInStateSeqError by 1"}},
	} {
		r := &runner{plan: shaped(tt.shape)}
		r.judgeStatistics(tt.rose)
		if len(r.result.XfrmStat) != len(tt.rose) || (len(r.result.Checks) == 1) != tt.judge || len(r.result.Checks) > 1 {
			t.Errorf("%s: %+v", name, r.result)
			continue
		}
		for node, rose := range tt.rose {
			if got := r.result.XfrmStat[node]; got == nil || !maps.Equal(got, rose) {
				t.Errorf("%s: node %s: %v, want %v", name, node, got, rose)
			}
		}
		if !tt.judge {
			continue
		}
		if c := r.result.Checks[0]; c.OK != tt.ok || (r.result.Verdict() == report.Pass) != tt.ok {
			t.Errorf("%s: %+v", name, c)
		}
		for _, w := range tt.words {
			if !strings.Contains(r.result.Checks[0].Detail, w) {
				t.Errorf("%s: no %q in %q", name, w, r.result.Checks[0].Detail)
			}
		}
	}
}

// What a tunnel's ends refuse fails the run, unless links are to make such packets.
func TestJudgeRefusals(t *testing.T) {
	t.Parallel()
	duplicates, corrupts := topology.Shape{Duplication: 0.1}, topology.Shape{Corruption: 0.1}
	for name, tt := range map[string]struct {
		reasons map[string]uint64
		shape   topology.Shape
		ok      bool
		words   string
	}{
		"nothing":                   {nil, topology.Shape{}, true, "no replay"},
		"not refused by ESP":        {map[string]uint64{"expired": 3, "no_sa": 4}, topology.Shape{}, true, "no replay"},
		"replay":                    {map[string]uint64{"replay": 3}, topology.Shape{}, false, "b: 3 replay"},
		"replay, lossy":             {map[string]uint64{"replay": 3}, topology.Shape{Loss: 0.5, Reordering: 0.5, Delay: 1}, false, "b: 3 replay"},
		"duplicated":                {map[string]uint64{"replay": 3}, duplicates, true, "b: 3 replay"},
		"duplicated, and forged":    {map[string]uint64{"replay": 3, "integrity": 2}, duplicates, false, "b: 2 integrity"},
		"corrupted":                 {map[string]uint64{"replay": 3, "integrity": 2, "malformed": 1, "unknown_spi": 4}, corrupts, true, "b: 4 unknown_spi"},
		"corrupted, and in plain":   {map[string]uint64{"integrity": 2, "plaintext": 1}, corrupts, false, "b: 1 plaintext"},
		"corrupted, against policy": {map[string]uint64{"policy": 1}, corrupts, false, "b: 1 policy"},
	} {
		r := &runner{plan: shaped(tt.shape)}
		r.judgeRefusals("t", []report.Drops{{Node: "a"}, {Node: "b", Reasons: tt.reasons}})
		if len(r.result.Checks) != 1 || r.result.Checks[0].OK != tt.ok || !strings.Contains(r.result.Checks[0].Detail, tt.words) {
			t.Errorf("%s: %+v", name, r.result.Checks)
		}
	}
}

// shaped is a plan of one link.
func shaped(s topology.Shape) *topology.Plan {
	return &topology.Plan{Links: []topology.PlannedLink{{Link: topology.Link{Shape: s}}}}
}

// A limit that somebody set and that the traffic did not reach is told, with how far it came; the default is not.
func TestNoteUnreached(t *testing.T) {
	t.Parallel()
	sas := []report.SA{{Blocks: 70, Bytes: 1000, Packets: 3}, {Blocks: 90, Bytes: 900, Packets: 4}}
	for name, tt := range map[string]struct {
		limits topology.Limits
		rekeys []report.Rekey
		words  []string // nil: nothing is to be said
	}{
		"default":          {topology.Limits{Time: topology.DefaultRekeyTime, Blocks: topology.DefaultRekeyBlocks}, nil, nil},
		"time":             {topology.Limits{Time: time.Second, Blocks: topology.DefaultRekeyBlocks}, nil, nil},
		"blocks":           {topology.Limits{Blocks: 100}, nil, []string{"t", "90 of 100 blocks"}},
		"all":              {topology.Limits{Blocks: 100, Bytes: 2000, Packets: 10}, nil, []string{"90 of 100 blocks", "1000 of 2000 bytes", "4 of 10 packets"}},
		"reached":          {topology.Limits{Blocks: 100}, []report.Rekey{{Tunnel: "t"}}, nil},
		"another's":        {topology.Limits{Blocks: 100}, []report.Rekey{{Tunnel: "u"}}, []string{"90 of 100 blocks"}},
		"packets, default": {topology.Limits{Blocks: topology.DefaultRekeyBlocks, Packets: 10}, nil, []string{"4 of 10 packets"}},
	} {
		// An emulated processor is given more time where it is to reach a limit; others are not.
		plan := &topology.Plan{Tunnels: []topology.PlannedTunnel{{}, {Tunnel: topology.Tunnel{Rekey: tt.limits}}}}
		if set := tt.words != nil || tt.rekeys != nil; (duration(plan, true) > DefaultDuration) != set || duration(plan, false) != DefaultDuration {
			t.Errorf("%s: flows last %v, emulated %v", name, duration(plan, false), duration(plan, true))
		}
		r := &runner{result: report.Result{Rekeys: tt.rekeys}}
		r.noteUnreached(topology.PlannedTunnel{Tunnel: topology.Tunnel{Name: "t", Rekey: tt.limits}}, sas)
		if (len(r.result.Warnings) == 1) != (tt.words != nil) || len(r.result.Warnings) > 1 {
			t.Errorf("%s: %q", name, r.result.Warnings)
			continue
		}
		for _, w := range tt.words {
			if !strings.Contains(r.result.Warnings[0], w) {
				t.Errorf("%s: no %q in %q", name, w, r.result.Warnings[0])
			}
		}
	}
}
