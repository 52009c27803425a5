package agent

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pqlab/ipsec"
	"pqlab/ipsec/keying"
	"pqlab/pqc/exchange"
)

func TestTunnel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Tunnel)
	}{
		{"fresh", nil},
		{"pinned", func(s *Tunnel) { s.Pinned = true }},
		{"pinned and mutual", func(s *Tunnel) { s.Pinned, s.Mutual = true, true }},
		{"hardened", func(s *Tunnel) { s.Combiner = "hardened" }},
		{"hybrid group", func(s *Tunnel) { s.TLSGroups = []string{"X25519MLKEM768"} }},
		{"protocol 50", func(s *Tunnel) { s.Policy.Encapsulation = ipsec.ESP }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := pair(t, Config{}, tt.change)
			atA, atB := watch(t, a), watch(t, b)
			first, err := a.Establish(t.Context(), "ab")
			if err != nil {
				t.Fatal(err)
			}
			again, err := a.Establish(t.Context(), "ab")
			if err != nil || again != first {
				t.Errorf("establishing again: %v, %+v where the first was %+v", err, again, first)
			}
			atB.until(t, ipsec.Established, 1) // a rekey would join the exchange that is not over at B
			second, err := b.Rekey(t.Context(), "ab")
			if err != nil {
				t.Fatal(err)
			}
			if second.Transcript == first.Transcript || !second.Initiator || second.Suite != first.Suite {
				t.Errorf("rekey %+v after %+v", second, first)
			}
			for _, l := range []*log{atA, atB} {
				for i, kind := range []ipsec.EventKind{ipsec.Established, ipsec.Rekeyed} {
					e := l.until(t, kind, 1)[0]
					want := []keying.Report{first, second}[i]
					if e.Exchange == nil || e.Exchange.Transcript != want.Transcript || e.Exchange.In != e.New.In || e.Tunnel != "ab" || e.At == 0 {
						t.Errorf("event %+v without the exchange %x", e, want.Transcript)
					}
				}
				if failed := l.of(ipsec.Failed); len(failed) > 0 {
					t.Errorf("failures: %+v", failed)
				}
			}
			sa, err := a.TunnelState(t.Context(), "ab")
			if err != nil {
				t.Fatal(err)
			}
			sb, err := b.TunnelState(t.Context(), "ab")
			if err != nil {
				t.Fatal(err)
			}
			if sa.SPIs.In == 0 || sa.SPIs.In != sb.SPIs.Out || sa.SPIs.Out != sb.SPIs.In || sa.Dataplane != "memory" {
				t.Errorf("states %+v and %+v", sa, sb)
			}
		})
	}
}

func TestAddTunnelRefuses(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	for name, change := range map[string]func(*Tunnel){
		"suite":         func(s *Tunnel) { s.Suite = "rot13+xor" },
		"combiner":      func(s *Tunnel) { s.Combiner = "and" },
		"TLS group":     func(s *Tunnel) { s.TLSGroups = []string{"SCHILLY"} },
		"encapsulation": func(s *Tunnel) { s.Policy.Encapsulation = ipsec.ESP + 1 },
	} {
		s := spec("t", n, n)
		change(&s)
		if _, err := n.AddTunnel(t.Context(), s); err == nil || !strings.Contains(err.Error(), "t") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if has := n.plane.has(); len(has) > 0 {
		t.Errorf("left: %v", has)
	}
	if _, err := n.AddTunnel(t.Context(), spec("t", n, n)); err != nil {
		t.Fatal(err)
	}
	if _, err := n.AddTunnel(t.Context(), spec("t", n, n)); err == nil {
		t.Error("two tunnels of one name")
	}
	if err := n.Trust(t.Context(), Trust{Tunnel: "t", CA: []byte("nonsense")}); err == nil {
		t.Error("a CA file without a certificate")
	}
	if err := n.Trust(t.Context(), Trust{Tunnel: "t", Pin: exchange.Pin{1}}); err != nil {
		t.Errorf("trust after a failed one: %v", err)
	}
	if err := n.Trust(t.Context(), Trust{Tunnel: "t", Pin: exchange.Pin{1}}); err == nil {
		t.Error("trusted twice")
	}
}

func TestEncapsulation(t *testing.T) {
	t.Parallel()
	for _, e := range []struct {
		tunnel   ipsec.Encapsulation
		exchange exchange.Encapsulation
		fails    bool
	}{{ipsec.UDP, exchange.UDP, false}, {ipsec.ESP, exchange.ESP, false}, {255, 0, true}} {
		if got, err := encapsulation(e.tunnel); got != e.exchange || (err != nil) != e.fails {
			t.Errorf("%d: %v, %v", e.tunnel, got, err)
		}
	}
}

// A dataplane that cannot be opened leaves nothing, says that the machine cannot, and may be tried again.
func TestNoDataplane(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	works := n.server.plane
	n.server.plane = func() (ipsec.Dataplane, error) { return nil, errors.ErrUnsupported }
	_, err := n.AddTunnel(t.Context(), spec("t", n, n))
	var e *Error
	if !errors.Is(err, errors.ErrUnsupported) || !errors.As(err, &e) || e.Call != "AddTunnel" {
		t.Fatalf("%v", err)
	}
	if state, err := n.TunnelState(t.Context(), ""); err != nil || state != (TunnelState{}) {
		t.Errorf("state %+v, %v", state, err)
	}
	n.server.plane = works
	if _, err := n.AddTunnel(t.Context(), spec("t", n, n)); err != nil {
		t.Error(err)
	}
}

// Where exchanges cannot be answered, the policy that was installed is taken back.
func TestAddTunnelWhoseAddressIsTaken(t *testing.T) {
	t.Parallel()
	n := start(t, Config{})
	at := netip.AddrPortFrom(n.addr, keying.Port).String()
	taken, err := net.Listen("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := n.AddTunnel(t.Context(), spec("t", n, n)); err == nil {
		t.Fatal("two listeners at one address")
	}
	if has := n.plane.has(); len(has) > 0 {
		t.Errorf("policies left: %v", has)
	}
	if err := n.Trust(t.Context(), Trust{Tunnel: "t", Pin: exchange.Pin{1}}); err == nil {
		t.Error("a peer for a tunnel that is not there")
	}
	taken.Close()
	if _, err := n.AddTunnel(t.Context(), spec("t", n, n)); err != nil {
		t.Errorf("when the address is free: %v", err)
	}
}

// A listener goes with the last tunnel at its address, and so does all that is known of a tunnel.
func TestRemoveTunnel(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Config{Reveal: true}, nil)
	connect(t, a, b, "second", nil)
	atB := watch(t, b)
	for _, tunnel := range []string{"ab", "second"} {
		if _, err := a.Establish(t.Context(), tunnel); err != nil {
			t.Fatal(err)
		}
	}
	answers := func() bool {
		conn, err := net.Dial("tcp", netip.AddrPortFrom(a.addr, keying.Port).String())
		if err == nil {
			conn.Close()
		}
		return err == nil
	}
	if err := a.RemoveTunnel(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	if has := a.plane.has(); len(has) != 1 || has[0] != "second" {
		t.Errorf("tunnels %v", has)
	}
	if !answers() {
		t.Error("the other tunnel's listener went too")
	}
	if _, err := b.Rekey(t.Context(), "ab"); !errors.Is(err, err.(*Error)) || len(atB.until(t, ipsec.Failed, 1)) == 0 {
		t.Errorf("a rekey with an end that is gone: %v", err)
	}
	if _, err := a.Rekey(t.Context(), "second"); err != nil {
		t.Errorf("the other tunnel: %v", err)
	}
	if err := a.RemoveTunnel(t.Context(), "second"); err != nil {
		t.Fatal(err)
	}
	if answers() {
		t.Error("answers exchanges without a tunnel")
	}
	if len(a.server.keying.ends) > 0 || len(a.server.keying.listeners) > 0 {
		t.Errorf("left: %d tunnels, %d listeners", len(a.server.keying.ends), len(a.server.keying.listeners))
	}
	for name, err := range map[string]error{
		"remove": a.RemoveTunnel(t.Context(), "ab"),
		"state":  second(a.TunnelState(t.Context(), "ab")),
		"rekey":  second(a.Rekey(t.Context(), "ab")),
	} {
		var e *Error
		if !errors.As(err, &e) || e.Node != "a" {
			t.Errorf("%s of a tunnel that is gone: %v", name, err)
		}
	}
	// It may come again.
	if err := b.RemoveTunnel(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	connect(t, a, b, "ab", nil)
	if _, err := b.Establish(t.Context(), "ab"); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

// Tunnels come and go, are rekeyed and looked at, all at once; for the race detector, and no call may hang.
func TestConcurrentCalls(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Config{Reveal: true}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	watch(t, a)
	if _, err := a.Establish(ctx, "ab"); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for i, call := range []func() error{
		func() error { return second(a.Rekey(ctx, "ab")) },
		func() error { return second(b.Rekey(ctx, "ab")) },
		func() error { return second(a.TunnelState(ctx, "ab")) },
		func() error { return second(a.TunnelState(ctx, "")) },
		func() error { return second(a.Secrets(ctx, "ab")) },
		func() error { return second(a.Usage(ctx)) },
		func() error {
			if _, err := a.AddTunnel(ctx, spec("other", a, b)); err != nil {
				return err
			}
			return errors.Join(a.Trust(ctx, Trust{Tunnel: "other", Pin: exchange.Pin{1}}), a.RemoveTunnel(ctx, "other"))
		},
	} {
		calls.Go(func() {
			for range 20 {
				if err := call(); err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
			}
		})
	}
	calls.Wait()
}

// A tunnel's state is that of one pair of SAs, also while a rekey replaces them.
func TestStateDuringARekey(t *testing.T) {
	t.Parallel()
	a, _ := pair(t, Config{}, nil)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	was := a.server.keying.tunnels.Get("ab").Current()
	var began atomic.Bool
	a.plane.onCounters = func() {
		if began.Swap(true) { // the rekey reads counters as well
			return
		}
		if err := a.server.keying.tunnels.Get("ab").Rekey(t.Context()); err != nil {
			t.Error(err)
		}
	}
	state, err := a.TunnelState(t.Context(), "ab")
	if err != nil || state.SPIs == was {
		t.Errorf("state %+v, %v", state, err)
	}
	// What a rekey does not explain is an error.
	a.plane.remove("ab", state.SPIs.Out)
	if _, err := a.TunnelState(t.Context(), "ab"); err == nil {
		t.Error("an SA that the dataplane has lost is no error")
	}
}

// Each exchange's own report is told, whatever comes of the next.
func TestReportsOfManyExchanges(t *testing.T) {
	t.Parallel()
	k := keyingState{ends: map[string]*end{"t": {}}}
	for i := range uint32(100) {
		k.report(keying.Report{Tunnel: "t", In: i})
		k.report(keying.Report{Tunnel: "gone", In: i})
		for _, want := range []uint32{i, i - min(i, maxReports-1)} {
			if r, ok := k.reportOf("t", want); !ok || r.In != want {
				t.Fatalf("report %d after %d: %+v, %v", want, i, r, ok)
			}
		}
	}
	if n := len(k.ends["t"].reports); n != maxReports || len(k.ends) != 1 {
		t.Errorf("%d reports of %d tunnels are kept", n, len(k.ends))
	}
	if _, ok := k.reportOf("gone", 5); ok {
		t.Error("a tunnel that is not there")
	}
}

// A stranger's exchange is told once, without a tunnel's name; one that a tunnel tells of is told by it alone.
func TestStrangers(t *testing.T) {
	t.Parallel()
	a, b := pair(t, Config{}, nil)
	events := watch(t, b)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	identity, err := exchange.NewIdentity("stranger", nil)
	if err != nil {
		t.Fatal(err)
	}
	known := b.server.keying.ends["ab"].peer.Config
	conn, err := net.Dial("tcp", netip.AddrPortFrom(b.addr, keying.Port).String())
	if err != nil {
		t.Fatal(err)
	}
	hello, err := b.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	known.Peer.Pin = hello.Pin
	if _, err := exchange.Initiate(t.Context(), conn, exchange.Endpoint{Certificate: identity}, known, exchange.Proposal{Tunnel: "ab", SPI: 4711}); !errors.Is(err, exchange.Refused) {
		t.Fatalf("a stranger: %v", err)
	}
	// The peer itself, who breaks off once it was accepted.
	if conn, err = net.Dial("tcp", netip.AddrPortFrom(b.addr, keying.Port).String()); err != nil {
		t.Fatal(err)
	}
	first := true
	known.Tamper = func(m []byte) []byte {
		if first {
			first = false
			return m
		}
		conn.Close()
		return nil
	}
	if _, err := exchange.Initiate(t.Context(), conn, exchange.Endpoint{Certificate: a.server.certificate}, known, exchange.Proposal{Tunnel: "ab", SPI: 4712}); err == nil {
		t.Fatal("an exchange without an answer")
	}
	failed := events.until(t, ipsec.Failed, 2)
	if failed[0].Tunnel != "" || failed[1].Tunnel != "ab" || failed[0].Error == "" || failed[1].Error == "" {
		t.Errorf("failures %+v", failed)
	}
	// Both are over, and a rekey is told after whatever they told.
	if _, err := a.Rekey(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	events.until(t, ipsec.Rekeyed, 1)
	if n := len(events.of(ipsec.Failed)); n != 2 {
		t.Errorf("%d failures told, of 2", n)
	}
	b.server.exchangeFailed(errors.Join(exchange.Busy, ipsec.ErrBusy))
	if n := len(b.server.events.subscribe()); n != 0 {
		t.Error("that a tunnel is busy was told as a failure")
	}
}

func TestSecretsOnlyWhereRevealed(t *testing.T) {
	t.Parallel()
	for _, reveal := range []bool{false, true} {
		a, b := pair(t, Config{Reveal: reveal}, nil)
		if _, err := a.Establish(t.Context(), "ab"); err != nil {
			t.Fatal(err)
		}
		for _, n := range []*node{a, b} {
			s, err := n.Secrets(t.Context(), "ab")
			if !reveal {
				if err == nil || !reflect.DeepEqual(s, Secrets{}) || n.server.keying.revealed != nil {
					t.Errorf("secrets of an agent that was not told to reveal: %v", err)
				}
				continue
			}
			if err != nil || len(s.Sources) != 2 || len(s.In.Key) != 32 || len(s.Inbound) != 1 || len(s.Outbound) != 1 {
				t.Errorf("secrets %+v, %v", s, err)
			}
			if _, err := n.Secrets(t.Context(), "none"); err == nil {
				t.Error("secrets of no tunnel")
			}
		}
		if !reveal {
			continue
		}
		sa, _ := a.Secrets(t.Context(), "ab")
		sb, _ := b.Secrets(t.Context(), "ab")
		if !reflect.DeepEqual(sa.In, sb.Out) && sa.In.SPI != sb.Out.SPI || string(sa.In.Key) != string(sb.Out.Key) || string(sa.In.Key) == string(sa.Out.Key) {
			t.Error("the ends do not hold the same keys")
		}
	}
}

// No message but the answers to Secrets and Export has a place for key material: none holds an SA, a key of any kind or bytes that
// are not known to be public.
func TestMessagesHoldNoKeys(t *testing.T) {
	t.Parallel()
	public := map[string]bool{ // bytes that may cross
		"agent.Identity.SigningKey": true, "agent.Trust.SigningKey": true, "agent.Trust.CA": true,
		"agent.Greeting.Pin": true, "agent.Trust.Pin": true, "keying.Report.Transcript": true,
	}
	var found []string
	var look func(path string, typ reflect.Type)
	look = func(path string, typ reflect.Type) {
		switch typ.Kind() {
		case reflect.Struct:
			if typ.PkgPath() == "time" || typ.PkgPath() == "net/netip" {
				return
			}
			for i := range typ.NumField() {
				f := typ.Field(i)
				look(typ.String()+"."+f.Name, f.Type)
			}
		case reflect.Pointer, reflect.Map:
			look(path, typ.Elem())
		case reflect.Slice, reflect.Array:
			if typ.Elem().Kind() == reflect.Uint8 {
				if !public[path] {
					found = append(found, path)
				}
				return
			}
			look(path, typ.Elem())
		case reflect.Interface, reflect.Func, reflect.Chan:
			found = append(found, path+" "+typ.String())
		}
	}
	// The calls of the service are methods of Server: (context, request) (answer, error), or request → a function that is
	// given (context, a function that sends an answer).
	names := map[string]bool{}
	for _, call := range calls() {
		names[call.name] = true
		for _, m := range call.messages {
			before := len(found)
			look(m.String(), m)
			if m == reflect.TypeFor[Secrets]() || m == reflect.TypeFor[Exported]() {
				if len(found) == before {
					t.Errorf("this test does not see the keys in %v", m)
				}
				found = found[:before]
			}
		}
	}
	for _, m := range service.Methods {
		if !names[m.MethodName] {
			t.Errorf("call %s is not looked at", m.MethodName)
		}
	}
	for _, s := range service.Streams {
		if !names[s.StreamName] {
			t.Errorf("stream %s is not looked at", s.StreamName)
		}
	}
	if len(names) != len(service.Methods)+len(service.Streams) || len(names) < 10 {
		t.Errorf("%d calls looked at, of %d", len(names), len(service.Methods)+len(service.Streams))
	}
	if len(found) > 0 {
		t.Errorf("messages with bytes that are not known to be public: %v", found)
	}
}

type call struct {
	name     string
	messages []reflect.Type
}

func calls() []call {
	of := func(name string, f any) call {
		typ := reflect.TypeOf(f)
		return call{name, []reflect.Type{typ.In(2), typ.Out(0)}}
	}
	events, exports := reflect.TypeOf((*Server).streamEvents), reflect.TypeOf((*Server).streamExports)
	return []call{
		of("Hello", (*Server).hello), of("AddTunnel", (*Server).addTunnel), of("Trust", (*Server).trust),
		of("Establish", (*Server).establish), of("Rekey", (*Server).rekey), of("Tunnel", (*Server).tunnelState),
		of("RemoveTunnel", (*Server).removeTunnel), of("Secrets", (*Server).secrets), of("Advance", (*Server).advance),
		of("Usage", (*Server).usage), of("Log", (*Server).log), of("OpenSink", (*Server).openSink), of("OpenRelay", (*Server).openRelay),
		of("Send", (*Server).send), of("FinishSink", (*Server).finishSink), of("CloseTraffic", (*Server).closeTraffic),
		{"Events", []reflect.Type{events.In(1), events.Out(0).In(1).In(0)}},
		{"Export", []reflect.Type{exports.In(1), exports.Out(0).In(1).In(0)}},
	}
}

func TestAdvance(t *testing.T) {
	t.Parallel()
	if err := start(t, Config{}).Advance(t.Context(), time.Second); err == nil {
		t.Error("the machine's clock was advanced")
	}
	a, b := pair(t, Config{ManualClock: true}, func(s *Tunnel) { s.Grace = time.Second })
	events := watch(t, a)
	if _, err := a.Establish(t.Context(), "ab"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []*node{b, a} {
		if err := n.Advance(t.Context(), 10*time.Minute); err != nil { // the default time of a rekey
			t.Fatal(err)
		}
	}
	if e := events.until(t, ipsec.Rekeyed, 1)[0]; e.Trigger != ipsec.ByTime || !e.Initiator {
		t.Errorf("rekey %+v", e)
	}
}

// A certificate is the node's name to its peers; one that cannot be used is an error that names the file.
func TestCertificate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	good, other := writeIdentity(t, dir, "good", "n"), writeIdentity(t, dir, "other", "n")
	c, err := certificateOf(Config{Node: "n", Certificate: good.both})
	if err != nil || c.Leaf == nil || exchange.PinOf(c.Leaf) != exchange.PinOf(good.leaf) {
		t.Fatalf("%v", err)
	}
	n := start(t, Config{Node: "n", Certificate: good.both})
	if hello, err := n.Hello(t.Context()); err != nil || hello.Pin != exchange.PinOf(good.leaf) {
		t.Errorf("greeting %v, %v", hello, err)
	}
	for name, file := range map[string]string{
		"missing":    dir + "/none.pem",
		"no key":     good.certificate,
		"no cert":    good.key,
		"mismatched": join(t, dir, good.certificate, other.key),
		"directory":  dir,
	} {
		if _, err := newServer(Config{Node: "n", Certificate: file}); err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
	self, err := certificateOf(Config{Node: "n"})
	if err != nil || self.Leaf == nil || self.Leaf.Subject.CommonName != "n" && (len(self.Leaf.DNSNames) != 1 || self.Leaf.DNSNames[0] != "n") {
		t.Errorf("self-signed: %v, %v", self.Leaf, err)
	}
}
