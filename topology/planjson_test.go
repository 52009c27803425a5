package topology_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"pqlab/topology"
)

// onlyPlanned are the keys that a plan's JSON has and the topology language has not.
var onlyPlanned = map[string][]string{
	"":        {"format", "format_version", "notes"},
	"nodes":   {"bridge", "forward", "services", "interfaces", "routes"},
	"links":   {"cell"},
	"tunnels": {"outer_a", "outer_b", "mtu", "links"},
	"traffic": {"src", "dst", "hops", "tunnels", "links"},
}

// What an author can write of a lab is in its plan's JSON as the language has it: without what only a plan has, it is read as a
// topology, and that says what the plan says.
func TestPlanJSON(t *testing.T) {
	t.Parallel()
	check := func(what string, p *topology.Plan) {
		text, err := p.JSON()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		document := map[string]any{}
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber() // seeds have 64 bits
		if err := d.Decode(&document); err != nil {
			t.Fatalf("%s: %v\n%s", what, err, text)
		}
		if document["format"] != topology.PlanFormat || document["format_version"] != json.Number(fmt.Sprint(topology.PlanFormatVersion)) {
			t.Errorf("%s: format %v, version %v", what, document["format"], document["format_version"])
		}
		noGoNames(t, what, document)
		want := topology.Topology{Name: p.Name, Description: p.Description, Seed: p.Seed, Verify: p.Verify}
		if p.Verify {
			want.Tolerance = p.Tolerance
		}
		for _, n := range p.Nodes {
			want.Nodes = append(want.Nodes, n.Node)
		}
		for _, l := range p.Links {
			want.Links = append(want.Links, l.Link)
		}
		for _, u := range p.Tunnels {
			want.Tunnels = append(want.Tunnels, u.Tunnel)
		}
		for _, f := range p.Traffic {
			want.Traffic = append(want.Traffic, f.Flow)
		}
		for list, keys := range onlyPlanned {
			of := []any{document}
			if list != "" {
				of = document[list].([]any)
			}
			for _, entry := range of {
				for _, k := range keys {
					if _, ok := entry.(map[string]any)[k]; !ok && k != "cell" {
						t.Errorf("%s: %s has no %s", what, list, k)
					}
					delete(entry.(map[string]any), k)
				}
			}
		}
		for _, list := range []string{"links", "tunnels", "traffic"} {
			if len(document[list].([]any)) == 0 { // which the language wants left out
				delete(document, list)
			}
		}
		rest, err := json.Marshal(document)
		if err != nil {
			t.Fatal(err)
		}
		got, err := topology.Parse(what, rest)
		if err != nil {
			t.Fatalf("%s: %v\n%s", what, err, rest)
		}
		// Compared as they are written, which leaves out where they were.
		a, b := *got, want
		for _, pair := range [][2]any{{a.Nodes, b.Nodes}, {a.Links, b.Links}, {a.Tunnels, b.Tunnels}, {a.Traffic, b.Traffic}, {a.Tolerance, b.Tolerance},
			{a.Name, b.Name}, {a.Description, b.Description}, {a.Seed, b.Seed}, {a.Verify, b.Verify}} {
			if !reflect.DeepEqual(pair[0], pair[1]) && !(reflect.ValueOf(pair[0]).Kind() == reflect.Slice && reflect.ValueOf(pair[0]).Len()+reflect.ValueOf(pair[1]).Len() == 0) {
				t.Fatalf("%s: got  %+v\nwant %+v\n%s", what, pair[0], pair[1], rest)
			}
		}
	}
	for _, b := range topology.Builtins() {
		top, err := topology.Builtin(b.Name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := top.Plan()
		if err != nil {
			t.Fatal(err)
		}
		check(b.Name, p)
	}
	planned(300, func(i int, _ *topology.Topology, p *topology.Plan) { check(fmt.Sprintf("topology %d", i), p) })
}

// noGoNames looks for keys that begin with a capital, as Go's do, and for null.
func noGoNames(t *testing.T, where string, v any) {
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			if k != strings.ToLower(k) {
				t.Errorf("%s.%s is no key of the language's kind", where, k)
			}
			noGoNames(t, where+"."+k, e)
		}
	case []any:
		for _, e := range v {
			noGoNames(t, where+"[]", e)
		}
	case nil:
		t.Errorf("%s is null", where)
	}
}

// What only a plan has is there with the plan's values, and what may be written in two ways in one of them.
func TestPlanJSONValues(t *testing.T) {
	t.Parallel()
	top, err := topology.Parse("x.yaml", []byte(`
name: x
nodes: [{name: ap, kind: ap, wifi: {width: 20MHz}}, {name: c, kind: client, certificate: "2.pem"}, {name: h, kind: host}]
links:
  - {name: air, kind: wifi, a: c, b: ap, wifi: iot-n-1x1-20}
  - {name: cable, kind: ethernet, a: ap, b: h, rate: 1Gbit/s, delay: 1.5ms, loss: 1%, queue: codel}
tunnels: [{name: t, a: c, b: h, rekey: {blocks: 2^20}}]
traffic: [{from: c, to: h, proto: udp, frame_size: 200, rate: 2.5Mbit/s}]
`))
	if err != nil {
		t.Fatal(err)
	}
	p, err := top.Plan()
	if err != nil {
		t.Fatal(err)
	}
	text, err := p.JSON()
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Nodes []struct {
			Certificate string
			Services    bool
			Interfaces  []struct {
				Name, Link string
				Addresses  []string
				MTU        int
			}
			Routes []struct{ Dst, Via, Src string }
		}
		Links []struct {
			Rate, Delay string
			Loss        float64
			Queue       struct{ Kind string }
			WiFi        struct{ Profile string }
			Cell        *struct {
				AP   string
				Seed uint64
				WiFi struct{ Width string }
			}
		}
		Tunnels []struct {
			OuterA string `json:"outer_a"`
			Rekey  struct{ Blocks uint64 }
			MTU    int
			Links  []string
		}
		Traffic []struct {
			Src, Dst  string
			FrameSize int `json:"frame_size"`
			Rate      string
			Tunnels   []string
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	c, air, cable, tunnel, flow := got.Nodes[1], got.Links[0], got.Links[1], got.Tunnels[0], got.Traffic[0]
	if nic := p.Nodes[1].Interfaces[1]; c.Certificate != "2.pem" || !c.Services || len(c.Interfaces) != len(p.Nodes[1].Interfaces) || c.Interfaces[1].Name != nic.Name ||
		c.Interfaces[1].Link != "air" || c.Interfaces[1].MTU != nic.MTU || c.Interfaces[1].Addresses[0] != nic.Addresses[0].String() ||
		len(c.Routes) != len(p.Nodes[1].Routes) {
		t.Errorf("%+v", c)
	}
	if air.Cell == nil || air.Cell.AP != "ap" || air.Cell.Seed != p.Links[0].Cell.Seed || air.Cell.WiFi.Width != "20MHz" || air.WiFi.Profile != "iot-n-1x1-20" || cable.Cell != nil {
		t.Errorf("%+v, %+v", air, cable)
	}
	if cable.Rate != "1Gbit/s" || cable.Delay != "1.5ms" || cable.Loss != 0.01 || cable.Queue.Kind != topology.CoDel {
		t.Errorf("%+v", cable)
	}
	if plan := p.Tunnels[0]; tunnel.Rekey.Blocks != 1<<20 || tunnel.MTU != plan.MTU || tunnel.OuterA != plan.OuterA.String() || !reflect.DeepEqual(tunnel.Links, plan.Links) {
		t.Errorf("%+v", tunnel)
	}
	if plan := p.Traffic[0]; flow.Src != plan.Src.String() || flow.Dst != plan.Dst.String() || flow.FrameSize != 200 || flow.Rate != "2500kbit/s" || !reflect.DeepEqual(flow.Tunnels, plan.Tunnels) {
		t.Errorf("%+v", flow)
	}
}
