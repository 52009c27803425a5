package topology

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
	"github.com/invopop/jsonschema"
)

// The YAML form is described once, as a tree of forms: what reads a value, what writes it, and its JSON Schema come from
// the same place and cannot drift apart.

// form is how a V is written in YAML.
type form[V any] struct {
	read   func(d *decoder, n ast.Node, element string) (V, bool)
	write  func(e *encoder, v V)
	zero   func(v V) bool // whether to leave it out
	schema func() *jsonschema.Schema
}

// field is one key of an object T.
type field[T any] struct {
	key, doc string
	required bool
	read     func(d *decoder, n ast.Node, element string, t *T)
	write    func(e *encoder, t *T)
	copy     func(to, from *T)
	zero     func(t *T) bool
	schema   func() *jsonschema.Schema
}

// key is a field that may be left out; at points to where it is in a T.
func key[T, V any](name, doc string, f form[V], at func(*T) *V) field[T] {
	return field[T]{
		key: name, doc: doc,
		read: func(d *decoder, n ast.Node, element string, t *T) {
			if v, ok := f.read(d, n, element); ok {
				*at(t) = v
			}
		},
		write:  func(e *encoder, t *T) { f.write(e, *at(t)) },
		copy:   func(to, from *T) { *at(to) = *at(from) },
		zero:   func(t *T) bool { return f.zero(*at(t)) },
		schema: f.schema,
	}
}

// need makes a field required.
func need[T any](f field[T]) field[T] {
	f.required = true
	return f
}

// object is a mapping with fixed keys.
func object[T any](what string, fields ...field[T]) form[T] {
	return form[T]{
		read: func(d *decoder, n ast.Node, element string) (T, bool) {
			var t T
			ok := d.object(n, element, what, fieldNames(fields), func(i int, value ast.Node, element string) {
				fields[i].read(d, value, element, &t)
			}, func(given []bool) {
				for i, f := range fields {
					if f.required && !given[i] {
						d.add(Missing, element, "%s: key %s is missing", what, f.key)
					}
				}
			})
			return t, ok
		},
		write: func(e *encoder, t T) {
			e.object(func(put func(key string, write func())) {
				for _, f := range fields {
					if f.required || !f.zero(&t) {
						put(f.key, func() { f.write(e, &t) })
					}
				}
			})
		},
		zero: func(t T) bool {
			for _, f := range fields {
				if !f.zero(&t) {
					return false
				}
			}
			return true
		},
		schema: func() *jsonschema.Schema {
			s := &jsonschema.Schema{Type: "object", Properties: jsonschema.NewProperties(), AdditionalProperties: jsonschema.FalseSchema}
			for _, f := range fields {
				property := f.schema()
				property.Description = f.doc
				s.Properties.Set(f.key, property)
				if f.required {
					s.Required = append(s.Required, f.key)
				}
			}
			return s
		},
	}
}

func fieldNames[T any](fields []field[T]) []string {
	names := make([]string, len(fields))
	for i, f := range fields {
		names[i] = f.key
	}
	return names
}

// list is a sequence. An empty one reads as nil.
func list[V any](what string, f form[V], most int) form[[]V] {
	return form[[]V]{
		read: func(d *decoder, n ast.Node, element string) ([]V, bool) {
			var vs []V
			ok := d.list(n, element, what, most, func(i int, n ast.Node, element string) {
				v, _ := f.read(d, n, element)
				vs = append(vs, v)
			})
			return vs, ok
		},
		write: func(e *encoder, vs []V) {
			e.list(func(put func(write func())) {
				for _, v := range vs {
					put(func() { f.write(e, v) })
				}
			})
		},
		zero:   func(vs []V) bool { return len(vs) == 0 },
		schema: func() *jsonschema.Schema { return &jsonschema.Schema{Type: "array", Items: f.schema()} },
	}
}

// scalar is a value that is one piece of text. What it parses is the text as it stands, whatever YAML takes it for.
func scalar[V comparable](parse func(string) (V, error), print func(V) string, schema func() *jsonschema.Schema) form[V] {
	var zero V
	return form[V]{
		read: func(d *decoder, n ast.Node, element string) (V, bool) {
			text, ok := d.scalar(n, element)
			if !ok {
				return zero, false
			}
			v, err := parse(text)
			if err != nil {
				d.add(BadValue, element, "%s: %s %v", lastKey(element), quote(text), err)
			}
			return v, err == nil
		},
		write:  func(e *encoder, v V) { e.plain(print(v)) },
		zero:   func(v V) bool { return v == zero },
		schema: schema,
	}
}

// text is a string, of any content or one of some.
func text[V ~string](schema func() *jsonschema.Schema) form[V] {
	return form[V]{
		read: func(d *decoder, n ast.Node, element string) (V, bool) {
			s, ok := d.scalar(n, element)
			if ok && s == "" {
				d.add(BadValue, element, "%s: is empty", lastKey(element))
				return "", false
			}
			return V(s), ok
		},
		write:  func(e *encoder, v V) { e.text(string(v)) },
		zero:   func(v V) bool { return v == "" },
		schema: schema,
	}
}

func lastKey(element string) string { return element[strings.LastIndexByte(element, '.')+1:] }

func ofType(kind string) func() *jsonschema.Schema {
	return func() *jsonschema.Schema { return &jsonschema.Schema{Type: kind} }
}

func pattern(p string, examples ...any) func() *jsonschema.Schema {
	return func() *jsonschema.Schema { return &jsonschema.Schema{Type: "string", Pattern: p, Examples: examples} }
}

func enum(names []string) func() *jsonschema.Schema {
	return func() *jsonschema.Schema {
		s := &jsonschema.Schema{Type: "string"}
		for _, n := range names {
			s.Enum = append(s.Enum, n)
		}
		return s
	}
}

// either accepts a value in one of two schemas.
func either(a, b func() *jsonschema.Schema) func() *jsonschema.Schema {
	return func() *jsonschema.Schema { return &jsonschema.Schema{AnyOf: []*jsonschema.Schema{a(), b()}} }
}

func atLeast(minimum int) func() *jsonschema.Schema {
	return func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "integer", Minimum: jsonNumber(minimum)}
	}
}

func nameForm() form[string] { return text[string](pattern(`^[a-z0-9][a-z0-9-]{0,31}$`)) }

func rateForm() form[Rate] {
	return scalar(ParseRate, Rate.String, pattern(`^[0-9]+(\.[0-9]+)? ?([kMGT]?bit/s)$`, "10Mbit/s", "2.5Gbit/s"))
}

func timeForm() form[time.Duration] {
	return scalar(ParseTime, time.Duration.String, pattern(`^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`, "5ms", "10m"))
}

func lossForm() form[float64] {
	number := func() *jsonschema.Schema {
		return &jsonschema.Schema{Type: "number", Minimum: jsonNumber(0), Maximum: jsonNumber(1)}
	}
	return scalar(parseLoss, formatLoss, either(number, pattern(`^[0-9]+(\.[0-9]+)?%$`, "1%")))
}

// shareForm is a share where none at all makes no sense.
func shareForm() form[float64] {
	f := lossForm()
	return scalar(func(s string) (float64, error) {
		v, err := parseLoss(s)
		if err == nil && v == 0 {
			err = fmt.Errorf("is nothing; leave it out")
		}
		return v, err
	}, formatLoss, f.schema)
}

func numberForm() form[float64] {
	return scalar(parseNumber, func(v float64) string { return strconv.FormatFloat(v, 'f', -1, 64) }, ofType("number"))
}

func lengthForm() form[float64] {
	return scalar(parseLength, formatLength, pattern(`^[0-9]+(\.[0-9]+)?k?m$`, "80m", "10km"))
}

func countForm() form[uint64] {
	return scalar(ParseCount, formatCount, either(atLeast(0), pattern(`^2\^[0-9]{1,2}$`, "2^30")))
}

func bytesForm() form[uint64] {
	return scalar(ParseBytes, formatBytes, either(atLeast(0), pattern(`^(2\^[0-9]{1,2}|[0-9]+(\.[0-9]+)? ?[KMGT]?i?B)$`, "64MiB")))
}

func intForm() form[int] {
	parse := func(s string) (int, error) {
		n, err := ParseCount(s)
		if err == nil && n > 1<<31-1 {
			err = fmt.Errorf("is larger than %d", 1<<31-1)
		}
		if err == nil && n == 0 {
			err = fmt.Errorf("is 0; leave it out for the default")
		}
		return int(n), err
	}
	return scalar(parse, strconv.Itoa, atLeast(1))
}

func seedForm() form[uint64] {
	parse := func(s string) (uint64, error) {
		n, err := ParseCount(s)
		if err == nil && n == 0 {
			err = fmt.Errorf("is 0; leave it out for the default")
		}
		return n, err
	}
	return scalar(parse, func(n uint64) string { return strconv.FormatUint(n, 10) }, atLeast(1))
}

func boolForm() form[bool] {
	parse := func(s string) (bool, error) {
		if s != "true" && s != "false" {
			return false, fmt.Errorf("is neither true nor false")
		}
		return s == "true", nil
	}
	return scalar(parse, strconv.FormatBool, ofType("boolean"))
}

func prefixForm(what string) form[netip.Prefix] {
	parse := func(s string) (netip.Prefix, error) {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			return p, fmt.Errorf("is not %s", what)
		}
		return p, nil
	}
	f := scalar(parse, netip.Prefix.String, pattern(`^[0-9a-fA-F:.]+/[0-9]{1,3}$`))
	f.write = func(e *encoder, p netip.Prefix) { e.text(p.String()) }
	return f
}

// endForm is an object that is mostly one name, as that of a node, and may then be written as the name alone.
func endForm[T any](name form[string], whole form[T], node func(*T) *string, alone func(T) bool) form[T] {
	return form[T]{
		read: func(d *decoder, n ast.Node, element string) (T, bool) {
			var t T
			if !isScalar(n) {
				return whole.read(d, n, element)
			}
			v, ok := name.read(d, n, element)
			*node(&t) = v
			return t, ok
		},
		write: func(e *encoder, t T) {
			if alone(t) && !e.json { // a program wants one form
				name.write(e, *node(&t))
			} else {
				whole.write(e, t)
			}
		},
		zero:   whole.zero,
		schema: either(name.schema, whole.schema),
	}
}

func topologyForm() form[Topology] {
	return object("the topology",
		key("name", "Name of the lab.", nameForm(), func(t *Topology) *string { return &t.Name }),
		key("description", "What the lab is.", text[string](ofType("string")), func(t *Topology) *string { return &t.Description }),
		key("seed", "Seed of every random choice of the links; default 1.", seedForm(), func(t *Topology) *uint64 { return &t.Seed }),
		key("verify", "Each shaped link is measured before the lab is used; default false.", boolForm(), func(t *Topology) *bool { return &t.Verify }),
		key("tolerance", "How far a link may be off for verify.", toleranceForm(), func(t *Topology) *Tolerance { return &t.Tolerance }),
		need(key("nodes", "Machines.", list("nodes", nodeForm(), maxNodes), func(t *Topology) *[]Node { return &t.Nodes })),
		key("links", "What joins the machines.", list("links", linkForm(), maxLinks), func(t *Topology) *[]Link { return &t.Links }),
		key("tunnels", "ESP tunnels, keyed by the post-quantum exchange.", list("tunnels", tunnelForm(), maxTunnels), func(t *Topology) *[]Tunnel { return &t.Tunnels }),
		key("traffic", "What pqlab run sends.", list("traffic", flowForm(), maxFlows), func(t *Topology) *[]Flow { return &t.Traffic }),
	)
}

func nodeForm() form[Node] {
	return object("node",
		need(key("name", "Unique name.", nameForm(), func(n *Node) *string { return &n.Name })),
		need(key("kind", "What it does with packets of others: a client or host nothing, a dpu forwards, an ap or switch bridges.",
			text[NodeKind](enum(nodeKinds())), func(n *Node) *NodeKind { return &n.Kind })),
		key("host", "Of a dpu: the host it is plugged into.", nameForm(), func(n *Node) *string { return &n.Host }),
		key("certificate", "PEM file with the node's TLS certificate and private key, in place of a self-signed one. Its place is relative to this file.",
			text[string](ofType("string")), func(n *Node) *string { return &n.Certificate }),
		key("profile", "Device profile that caps its CPU.", text[string](enum(Profiles())), func(n *Node) *string { return &n.Profile }),
		key("inner", "Addresses (/32, /128) on the loopback interface of a client or host, reached through tunnels only.",
			list("inner", prefixForm("an inner address, as 192.168.7.1/32"), maxList), func(n *Node) *[]netip.Prefix { return &n.Inner }),
		key("wifi", "Of an ap: the medium that its stations share.", optional(cellForm()), func(n *Node) **Cell { return &n.WiFi }),
	)
}

func toleranceForm() form[Tolerance] {
	return object("tolerance",
		key("rate", "Share of the rate; default 2%.", shareForm(), func(t *Tolerance) *float64 { return &t.Rate }),
		key("delay", "Of the median of the delay; default 1ms.", timeForm(), func(t *Tolerance) *time.Duration { return &t.Delay }),
		key("jitter", "Of the quartiles of the delay; default 1ms.", timeForm(), func(t *Tolerance) *time.Duration { return &t.Jitter }),
		key("tail", "Of the 90th and 99th percentile of the delay; default 10ms.", timeForm(), func(t *Tolerance) *time.Duration { return &t.Tail }),
		key("confidence", "Of the intervals of what was seen; only what is out of tolerance for all of them is refused; default 99.99%.", shareForm(), func(t *Tolerance) *float64 { return &t.Confidence }),
	)
}

func linkForm() form[Link] {
	end := endForm(nameForm(), object("link end",
		need(key("node", "Node that the link enters.", nameForm(), func(e *End) *string { return &e.Node })),
		key("interface", "Name of the interface, at most 15 bytes; default eth0, fib0, pcie0, wlan0 …",
			text[string](pattern(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)), func(e *End) *string { return &e.Interface }),
		key("addresses", "Addresses with the prefix length of the network; default: allocated.",
			list("addresses", prefixForm("an address with a prefix length, as 10.0.0.1/24"), maxList), func(e *End) *[]netip.Prefix { return &e.Addresses }),
	), func(e *End) *string { return &e.Node }, func(e End) bool { return e.Interface == "" && len(e.Addresses) == 0 })
	fields := []field[Link]{
		key("name", "Unique name; default: the names of its ends.", nameForm(), func(l *Link) *string { return &l.Name }),
		need(key("kind", "What it is made of.", text[LinkKind](enum(linkKinds())), func(l *Link) *LinkKind { return &l.Kind })),
		need(key("a", "One end: a node's name, or more.", end, func(l *Link) *End { return &l.A })),
		need(key("b", "The other end.", end, func(l *Link) *End { return &l.B })),
	}
	fields = append(fields, shapeFields(func(l *Link) *Shape { return &l.Shape })...)
	return object("link", append(fields,
		key("length", "Of a fibre.", lengthForm(), func(l *Link) *float64 { return &l.Length }),
		key("attenuation", "Of a fibre; default 0.2dB/km. It is kept for those who ask, and does nothing to packets.", attenuationForm(), func(l *Link) *float64 { return &l.Attenuation }),
		key("gen", "Of PCI Express, 1 to 6: gives a pcie link its rate.", intForm(), func(l *Link) *int { return &l.Generation }),
		key("lanes", "Of PCI Express: 1, 2, 4, 8, 16.", intForm(), func(l *Link) *int { return &l.Lanes }),
		key("wifi", "The station's radio, by name or with more: the link shares the air of its access point with other stations.",
			optional(stationForm()), func(l *Link) **Station { return &l.WiFi }),
		key("mtu", "Bytes of IP packet; default 9000 for a fibre, else 1500.", intForm(), func(l *Link) *int { return &l.MTU }),
		key("seed", "Of this link's randomness; default: from the topology's seed and the link's name.", seedForm(), func(l *Link) *uint64 { return &l.Seed }),
	)...)
}

// shapeFields are the keys that a T has for a Shape.
func shapeFields[T any](at func(*T) *Shape) []field[T] {
	chain := object("gilbert_elliott",
		need(key("p", "Probability to go from the good state to the bad one.", shareForm(), func(g *GilbertElliott) *float64 { return &g.P })),
		need(key("r", "Probability to go back: one by the mean length of a burst.", shareForm(), func(g *GilbertElliott) *float64 { return &g.R })),
		key("bad", "Share of packets lost in the bad state; default all.", shareForm(), func(g *GilbertElliott) *float64 { return &g.Bad }),
		key("good", "Share of packets lost in the good state; default none.", lossForm(), func(g *GilbertElliott) *float64 { return &g.Good }),
	)
	return []field[T]{
		key("rate", "Bit rate in each direction; default: unshaped.", rateForm(), func(t *T) *Rate { return &at(t).Rate }),
		key("rate_trace", "In place of a rate: times and their rates, over and over.", traceForm("rate_trace", stepForm(), maxTrace, ParseRateTrace), func(t *T) *[]RateStep { return &at(t).RateTrace }),
		key("queue", "Of what waits for the rate; default: 24 ms at the rate, or 0.7 of the delay if that is longer.", queueForm(), func(t *T) *Queue { return &at(t).Queue }),
		key("delay", "One way, added to what the length of a fibre gives.", timeForm(), func(t *T) *time.Duration { return &at(t).Delay }),
		key("jitter", "Standard deviation of the delay.", timeForm(), func(t *T) *time.Duration { return &at(t).Jitter }),
		key("distribution", "Of the delay; default normal.", text[string](enum(distributions())), func(t *T) *string { return &at(t).Distribution }),
		key("table", "In place of a distribution: equally likely values, of any mean and scale.", list("table", numberForm(), maxTable), func(t *T) *[]float64 { return &at(t).Table }),
		key("unordered", "Packets whose delay varies overtake each other; default: they keep their order.", boolForm(), func(t *T) *bool { return &at(t).Unordered }),
		key("loss", "Share of packets lost.", lossForm(), func(t *T) *float64 { return &at(t).Loss }),
		key("loss_correlation", "Of the losses of two packets that follow one another.", lossForm(), func(t *T) *float64 { return &at(t).LossCorrelation }),
		key("gilbert_elliott", "Loss in bursts, in place of loss: a good and a bad state, with a step for each packet.", chain, func(t *T) *GilbertElliott { return &at(t).GilbertElliott }),
		key("loss_trace", "In place of loss: how many packets pass, are lost, pass, … over and over.", traceForm("loss_trace", wholeForm(), maxTrace, ParseLossTrace), func(t *T) *[]int { return &at(t).LossTrace }),
		key("outages", "When nothing passes.", list("outages", outageForm(), maxOutages), func(t *T) *[]Outage { return &at(t).Outages }),
		key("duplication", "Share of packets that come twice.", lossForm(), func(t *T) *float64 { return &at(t).Duplication }),
		key("reordering", "Share of packets that skip the delay and overtake others.", lossForm(), func(t *T) *float64 { return &at(t).Reordering }),
		key("corruption", "Share of packets in which a bit is turned over.", lossForm(), func(t *T) *float64 { return &at(t).Corruption }),
	}
}

func tunnelForm() form[Tunnel] {
	end := endForm(nameForm(), object("tunnel end",
		need(key("node", "Client, host or dpu.", nameForm(), func(e *TunnelEnd) *string { return &e.Node })),
		key("subnets", "Protected behind this end; default: a dpu's PCIe subnets, the inner or own addresses of a client or host.",
			list("subnets", prefixForm("a subnet, as 10.0.0.0/24"), maxList), func(e *TunnelEnd) *[]netip.Prefix { return &e.Subnets }),
	), func(e *TunnelEnd) *string { return &e.Node }, func(e TunnelEnd) bool { return len(e.Subnets) == 0 })
	limits := object("rekey",
		key("time", "Default 10m.", timeForm(), func(l *Limits) *time.Duration { return &l.Time }),
		key("blocks", "AES blocks; default 2^30.", countForm(), func(l *Limits) *uint64 { return &l.Blocks }),
		key("bytes", "Default: no limit.", bytesForm(), func(l *Limits) *uint64 { return &l.Bytes }),
		key("packets", "Default: no limit.", countForm(), func(l *Limits) *uint64 { return &l.Packets }),
	)
	return object("tunnel",
		need(key("name", "Unique name.", nameForm(), func(t *Tunnel) *string { return &t.Name })),
		need(key("a", "The end that starts the first exchange: a node's name, or more.", end, func(t *Tunnel) *TunnelEnd { return &t.A })),
		need(key("b", "The other end.", end, func(t *Tunnel) *TunnelEnd { return &t.B })),
		key("keying", "What keys it: pqlab (default), or strongswan for classical IKEv2 to compare with.", text[string](enum(keyings())), func(t *Tunnel) *string { return &t.Keying }),
		key("suite", "Signature and KEM; default "+DefaultSuite+".", text[string](enum(Suites())), func(t *Tunnel) *string { return &t.Suite }),
		key("combiner", "How the secrets are joined; default xor.", text[string](enum(combiners())), func(t *Tunnel) *string { return &t.Combiner }),
		key("identity", "A signature key for each exchange (fresh, the default) or a long-lived one.", text[string](enum(identities())), func(t *Tunnel) *string { return &t.Identity }),
		key("mutual", "Both ends sign.", boolForm(), func(t *Tunnel) *bool { return &t.Mutual }),
		key("tls_groups", "TLS groups offered; default X25519 alone.", list("tls_groups", text[string](enum(TLSGroups())), maxList), func(t *Tunnel) *[]string { return &t.TLSGroups }),
		key("ca", "PEM file whose certificates are trusted in place of pinned self-signed ones. Both nodes need a certificate. Its place is relative to this file.", text[string](ofType("string")), func(t *Tunnel) *string { return &t.CA }),
		key("rekey", "When the keys are replaced.", limits, func(t *Tunnel) *Limits { return &t.Rekey }),
		key("encapsulation", "ESP in UDP (default) or IP protocol 50.", text[string](enum(encapsulations())), func(t *Tunnel) *string { return &t.Encapsulation }),
		key("dataplane", "What carries the packets; default auto.", text[string](enum(dataplanes())), func(t *Tunnel) *string { return &t.Dataplane }),
		key("family", "Of the outer addresses; default ipv4.", text[string](enum(families())), func(t *Tunnel) *string { return &t.Family }),
		key("deadline", "Of each step of the exchange; default 5s.", timeForm(), func(t *Tunnel) *time.Duration { return &t.Deadline }),
	)
}

func flowForm() form[Flow] {
	return object("flow",
		key("name", "Unique name; default: its ends and protocol.", nameForm(), func(f *Flow) *string { return &f.Name }),
		need(key("from", "Node that sends.", nameForm(), func(f *Flow) *string { return &f.From })),
		need(key("to", "Node that receives.", nameForm(), func(f *Flow) *string { return &f.To })),
		key("via", "Nodes that relay a TCP flow in between.", list("via", nameForm(), maxList), func(f *Flow) *[]string { return &f.Via }),
		key("proto", "Default tcp.", text[string](enum(protos())), func(f *Flow) *string { return &f.Proto }),
		key("streams", "Default 1.", intForm(), func(f *Flow) *int { return &f.Streams }),
		key("rate", "Of all streams; default: TCP as fast as it goes, UDP 100Mbit/s.", rateForm(), func(f *Flow) *Rate { return &f.Rate }),
		key("frame_size", "Bytes of IP packet, UDP; default: the largest that fits.", intForm(), func(f *Flow) *int { return &f.FrameSize }),
		key("family", "Default ipv4.", text[string](enum(families())), func(f *Flow) *string { return &f.Family }),
		key("duration", "Default: what the run says.", timeForm(), func(f *Flow) *time.Duration { return &f.Duration }),
	)
}
