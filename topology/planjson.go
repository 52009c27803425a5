package topology

import (
	"bytes"
	"encoding/json"
	"net/netip"
)

// What Plan.JSON says of itself.
const (
	PlanFormat        = "pqlab plan"
	PlanFormatVersion = 1
)

// JSON gives the plan as one document. What an author can write has the keys and the values of the topology language, and is left
// out where it is none; what only a plan has follows. It ends with a newline. A plan whose traces have more entries than a file may
// have is an error, Errors.
func (p *Plan) JSON() ([]byte, error) {
	entries := 0
	for i := range p.Links {
		entries += p.Links[i].traced()
	}
	if entries > maxCommas {
		var found problems
		found.add(BadValue, "", "with its traces written out, the plan has more than %d entries", maxCommas)
		return nil, found.found
	}
	type document struct {
		Format        string            `json:"format"`
		FormatVersion int               `json:"format_version"`
		Name          string            `json:"name"`
		Description   string            `json:"description,omitempty"`
		Seed          uint64            `json:"seed"`
		Verify        bool              `json:"verify"`
		Tolerance     json.RawMessage   `json:"tolerance,omitempty"`
		Nodes         []json.RawMessage `json:"nodes"`
		Links         []json.RawMessage `json:"links"`
		Tunnels       []json.RawMessage `json:"tunnels"`
		Traffic       []json.RawMessage `json:"traffic"`
		Notes         []string          `json:"notes"`
	}
	d := document{
		Format: PlanFormat, FormatVersion: PlanFormatVersion, Name: p.Name, Description: p.Description, Seed: p.Seed, Verify: p.Verify,
		Nodes: []json.RawMessage{}, Links: []json.RawMessage{}, Tunnels: []json.RawMessage{}, Traffic: []json.RawMessage{}, Notes: some(p.Notes),
	}
	if p.Verify {
		d.Tolerance = asJSON(toleranceForm(), p.Tolerance)
	}
	node, link, tunnel, flow := nodeForm(), linkForm(), tunnelForm(), flowForm()
	for i := range p.Nodes {
		n := &p.Nodes[i]
		d.Nodes = append(d.Nodes, with(asJSON(node, n.Node), n.extra()))
	}
	for i := range p.Links {
		l := &p.Links[i]
		d.Links = append(d.Links, with(asJSON(link, l.Link), l.extra()))
	}
	for _, t := range p.Tunnels {
		d.Tunnels = append(d.Tunnels, with(asJSON(tunnel, t.Tunnel), struct {
			OuterA netip.Addr `json:"outer_a"`
			OuterB netip.Addr `json:"outer_b"`
			MTU    int        `json:"mtu"`
			Links  []string   `json:"links"`
		}{t.OuterA, t.OuterB, t.MTU, some(t.Links)}))
	}
	for _, f := range p.Traffic {
		d.Traffic = append(d.Traffic, with(asJSON(flow, f.Flow), struct {
			Src     netip.Addr   `json:"src"`
			Dst     netip.Addr   `json:"dst"`
			Hops    []netip.Addr `json:"hops"`
			Tunnels []string     `json:"tunnels"`
			Links   []string     `json:"links"`
		}{f.Src, f.Dst, some(f.Hops), some(f.Tunnels), some(f.Links)}))
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(d)
	return b.Bytes(), err
}

func (n *PlannedNode) extra() any {
	type nic struct {
		Name      string         `json:"name"`
		Link      string         `json:"link,omitempty"`
		Addresses []netip.Prefix `json:"addresses"`
		MTU       int            `json:"mtu,omitempty"`
	}
	type route struct {
		Dst netip.Prefix `json:"dst"`
		Via netip.Addr   `json:"via"`
		Src netip.Addr   `json:"src,omitzero"`
	}
	x := struct {
		Bridge     bool    `json:"bridge"`
		Forward    bool    `json:"forward"`
		Services   bool    `json:"services"`
		Interfaces []nic   `json:"interfaces"`
		Routes     []route `json:"routes"`
	}{Bridge: n.Bridge, Forward: n.Forward, Services: n.Services, Interfaces: []nic{}, Routes: []route{}}
	for _, i := range n.Interfaces {
		x.Interfaces = append(x.Interfaces, nic{i.Name, i.Link, some(i.Addresses), i.MTU})
	}
	for _, r := range n.Routes {
		x.Routes = append(x.Routes, route(r))
	}
	return x
}

func (l *PlannedLink) extra() any {
	type cell struct {
		AP   string          `json:"ap"`
		Seed uint64          `json:"seed"`
		WiFi json.RawMessage `json:"wifi"` // as an access point has it
	}
	x := struct {
		Cell *cell `json:"cell,omitempty"`
	}{}
	if c := l.Cell; c != nil {
		x.Cell = &cell{c.AP, c.Seed, asJSON(cellForm(), c.Cell)}
	}
	return x
}

// asJSON writes a value as the language has it.
func asJSON[V any](f form[V], v V) json.RawMessage {
	e := encoder{depth: flowDepth, json: true}
	f.write(&e, v)
	return e.b.Bytes()
}

// with puts the fields of another object behind those of one that has some.
func with(object json.RawMessage, more any) json.RawMessage {
	text, err := json.Marshal(more)
	if err != nil {
		panic(err) // names, numbers and addresses always marshal
	}
	if len(text) == len("{}") {
		return object
	}
	return append(append(object[:len(object)-1], ", "...), text[1:]...)
}

// some is a list, never null.
func some[V any](all []V) []V {
	if all == nil {
		return []V{}
	}
	return all
}
