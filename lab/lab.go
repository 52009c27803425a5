// Package lab makes a topology real and takes it down again. It owns everything that must be cleaned up.
package lab

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"pqlab/agent"
	"pqlab/internal/journal"
	"pqlab/internal/netns"
	"pqlab/ipsec/strongswan"
	"pqlab/links"
	"pqlab/nodes"
	"pqlab/probe"
	"pqlab/topology"
)

// Options say how a plan is made real. The zero value uses what the machine has.
type Options struct {
	Shaper string // "auto" (or empty), "tbf", "netem", "wire", "none"
	// Fates has traces of what befalls the packets of links written or replayed. Down completes those that are written.
	Fates links.Fates
	// ManualClock stops the clock of every tunnel but for Lab.Advance.
	ManualClock bool
	// Reveal keeps the secrets of each exchange for Tunnel.Secrets. For verifying the combination, never otherwise.
	Reveal bool
	// Seq is the sequence number after which every SA begins, for specs of what comes after 2^32 packets.
	Seq uint64
	// Log gets what the nodes' agents write to their standard error; nil discards it.
	Log io.Writer
	// Dataplane of the tunnels that leave it to the machine: "auto" (or empty), "gateway", "xfrm". DataplaneOf says it for
	// a node, whatever its tunnels ask for, so that two dataplanes can be held against each other.
	Dataplane   string
	DataplaneOf map[string]string
	// OnTraffic makes packets that find no SA begin the exchange for one.
	OnTraffic bool
	// Port of the user-space gateways: "auto" (or empty), "tun", "packet".
	Port string
	// Reach finds out which rates cannot be had here, for Lab.Unreached. A plan that is verified has none.
	Reach bool
	// Quiet is how long nothing of a UDP flow may arrive after its end before what is missing is lost; 0 is
	// traffic.DefaultQuiet. Emulated processors take longer to forward a packet.
	Quiet time.Duration
}

// Lab is a plan made real.
type Lab struct {
	Plan     *topology.Plan
	Shaper   links.Shaper
	Started  time.Time
	Warnings []string // what the machine could not do and the plan could do without, such as CPU caps

	Verified   []Measured    // each direction of each shaped link, if the plan wants that verified
	VerifyTime time.Duration // that it took

	Unreached []UnreachedLink // if Options ask for that

	nodes   map[string]*Node
	links   map[string]*links.Link
	tunnels map[string]*Tunnel
	planes  map[string]probe.Plane // by node, of those at which a tunnel ends
	// strongswan is what keys the tunnels of a node, by its name, where pqlab does not.
	strongswan map[string]*strongswan.Installation

	options  Options
	patience time.Duration // with an agent that is to answer at once; 0: the default
	log      *lockedWriter
	journal  *journal.Journal // nil unless a node has a profile

	mu   sync.Mutex
	undo []step              // what Down takes back, last first
	down bool                // Down was called
	err  error               // of the first agent that ended on its own
	pids *nodes.PIDNamespace // of the commands in the nodes; nil before the first

	failed chan struct{} // closed with err
}

type step struct {
	name string
	do   func(context.Context) error
}

// Up makes the plan real: namespaces, links, addresses, agents, and the policies of its tunnels, which refuse plaintext
// from then on. It does not exchange keys. It is all or nothing: after an error nothing is left.
func Up(ctx context.Context, plan *topology.Plan, options Options) (_ *Lab, err error) {
	if err := check(plan, options); err != nil {
		return nil, err
	}
	shaper, err := options.Fates.Choose(plan.Links, options.Shaper)
	if err != nil {
		var lacks *links.UnsupportedError
		if errors.As(err, &lacks) && plan.Verify {
			lacks.Shaped = true
		}
		return nil, err
	}
	keying, err := chooseKeying(plan, options)
	if err != nil {
		return nil, err
	}
	planes, err := choosePlanes(plan, options)
	if err != nil {
		return nil, err
	}
	if options.Log == nil {
		options.Log = io.Discard
	}
	l := &Lab{
		Plan: plan, Shaper: shaper, Started: time.Now(), options: options,
		log:   &lockedWriter{to: options.Log},
		nodes: map[string]*Node{}, links: map[string]*links.Link{}, tunnels: map[string]*Tunnel{}, planes: planes, strongswan: keying,
		failed: make(chan struct{}),
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Down(context.WithoutCancel(ctx)))
		}
	}()
	l.repair()
	if err := l.openJournal(); err != nil {
		return nil, err
	}
	if err := l.makeNamespaces(); err != nil {
		return nil, err
	}
	for _, n := range plan.Nodes {
		if err := l.nodes[n.Name].makeCgroup(l); err != nil {
			return nil, err
		}
	}
	// Starting a process takes longer than anything else here, so links are made beside it.
	agents, actx := errgroup.WithContext(ctx)
	agents.SetLimit(runtime.NumCPU())
	wiring := make(chan error, 1)
	go func() { wiring <- l.wire(ctx) }()
	if plan.Verify || options.Reach { // undisturbed by processes that start
		err := <-wiring
		if err != nil {
			return nil, err
		}
		wiring <- nil
	}
	for _, n := range l.Plan.Nodes {
		if n.Services {
			agents.Go(func() error { return l.nodes[n.Name].startAgent(actx, l) })
		}
	}
	if err := errors.Join(<-wiring, agents.Wait()); err != nil {
		return nil, err
	}
	if err := l.addTunnels(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// check refuses what no lab can be made of, before anything is made.
func check(plan *topology.Plan, o Options) error {
	if plan.Verify && o.Shaper == "none" {
		return fmt.Errorf("verify: true %w: another --shaper gives links their shapes; without verify: true nothing is measured", ErrUnshaped)
	}
	if plan.Verify && o.Fates != (links.Fates{}) {
		return fmt.Errorf("verify: true %w: without it fates can be recorded and replayed", ErrVerifiedFates)
	}
	for _, n := range plan.Nodes {
		if n.Profile == "" {
			continue
		}
		if _, err := nodes.ProfileByName(n.Profile); err != nil {
			return fmt.Errorf("node %s: %w", n.Name, err)
		}
	}
	for _, n := range plan.Nodes {
		if n.Certificate != "" {
			if err := checkCertificate(n.Certificate); err != nil {
				return fmt.Errorf("node %s: certificate: %w: %w", n.Name, ErrFile, err)
			}
		}
	}
	for _, t := range plan.Tunnels {
		if t.CA != "" {
			if err := checkCA(t.CA); err != nil {
				return fmt.Errorf("tunnel %s: CA: %w: %w", t.Name, ErrFile, err)
			}
		}
	}
	return nil
}

// choosePlanes says what carries the tunnels at each node at which one ends. A node has one dataplane.
func choosePlanes(plan *topology.Plan, o Options) (map[string]probe.Plane, error) {
	found := map[string]probe.Plane{} // by what is wanted: each is probed once
	wants := map[string]string{}      // by node
	planes := map[string]probe.Plane{}
	for _, t := range plan.Tunnels {
		for _, node := range []string{t.A.Node, t.B.Node} {
			want := t.Dataplane
			if want == "" || want == "auto" {
				want = cmp.Or(o.Dataplane, "auto")
			}
			want = cmp.Or(o.DataplaneOf[node], want)
			if t.Keying == topology.Strongswan { // which knows no other
				want = probe.XFRM
			}
			plane, ok := found[want]
			if !ok {
				var err error
				if plane, err = probe.Dataplane(want); err != nil {
					return nil, fmt.Errorf("tunnel %s: %w", t.Name, err)
				}
				found[want] = plane
			}
			if has, ok := planes[node]; ok && has != plane {
				return nil, fmt.Errorf("tunnel %s: dataplane %s, but another tunnel of node %s has %s: a node has one", t.Name, want, node, wants[node])
			}
			planes[node], wants[node] = plane, want
		}
	}
	return planes, nil
}

func (l *Lab) makeNamespaces() error {
	namespaces, err := netns.New(len(l.Plan.Nodes))
	if err != nil {
		return err
	}
	for i, n := range l.Plan.Nodes {
		l.nodes[n.Name] = &Node{Plan: n, lab: l, ns: namespaces[i]}
		l.onDown("node "+n.Name, func(context.Context) error { return namespaces[i].Close() })
	}
	return nil
}

// wire makes the links and gives the nodes their addresses and routes. Links of the kernel go with the namespaces of their
// ends: it frees a thousand of those together in the time that it takes to delete one link after the other.
func (l *Lab) wire(ctx context.Context) error {
	for _, p := range l.Plan.Links {
		if err := ctx.Err(); err != nil {
			return err
		}
		link, err := links.Make(p, l.nodes[p.A.Node].ns, l.nodes[p.B.Node].ns, l.Shaper)
		if err != nil {
			return err
		}
		l.links[p.Name] = link
		if link.Driven() {
			l.onDown("link "+p.Name, func(context.Context) error { return link.Abandon() })
		}
		if len(link.Ignored) > 0 {
			l.warn(fmt.Sprintf("link %s: %s not given, as --shaper=none asks", p.Name, strings.Join(link.Ignored, ", ")))
		}
		if s := link.State(); s.Shapes[0].Random() && !s.Seeded {
			l.warn(fmt.Sprintf("link %s: this kernel's %s takes no seed (Linux 6.6 does); its random choices differ from run to run", p.Name, s.Shaper))
		}
	}
	switch { // while the nodes send nothing
	case l.Plan.Verify:
		if err := l.verify(ctx); err != nil {
			return err
		}
	case l.options.Reach:
		if err := l.reach(ctx); err != nil {
			return err
		}
	}
	g := errgroup.Group{}
	g.SetLimit(runtime.NumCPU())
	for _, n := range l.Plan.Nodes {
		g.Go(func() error { return nodes.Configure(l.nodes[n.Name].ns, n) })
	}
	return g.Wait()
}

func (l *Lab) onDown(name string, do func(context.Context) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.undo = append(l.undo, step{name, do})
}

// Guard gives a context that ends with ctx, or with Err as its cause as soon as an agent ends on its own: whoever waits
// for the lab's nodes then waits in vain.
func (l *Lab) Guard(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-l.failed:
			cancel(l.Err())
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// Err is the *AgentError of the first agent that ended though nobody took the lab down.
func (l *Lab) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *Lab) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		l.err = err
		close(l.failed)
	}
}

func (l *Lab) isDown() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.down
}

// Down takes the lab down. It goes on after an error and reports all of them; a second call does nothing.
func (l *Lab) Down(ctx context.Context) error {
	l.mu.Lock()
	undo := l.undo
	l.undo, l.down = nil, true
	l.mu.Unlock()
	var errs []error
	for _, s := range slices.Backward(undo) {
		if err := s.do(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", s.name, err))
		}
	}
	if errs == nil {
		return nil
	}
	return &DownError{errs}
}

// DownError says what of a lab could not be taken down. The rest is down.
type DownError struct {
	Errs []error // one for each thing
}

func (e *DownError) Error() string   { return "taking the lab down: " + errors.Join(e.Errs...).Error() }
func (e *DownError) Unwrap() []error { return e.Errs }

// commands gives the PID namespace in which commands run, because what they start must not outlive the lab.
func (l *Lab) commands() (*nodes.PIDNamespace, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.down {
		return nil, errors.New("the lab is down")
	}
	if l.pids == nil {
		pids, err := nodes.NewPIDNamespace()
		if err != nil {
			return nil, err
		}
		l.pids = pids
		l.undo = append(l.undo, step{"commands", func(context.Context) error { return pids.Close() }})
	}
	return l.pids, nil
}

func (l *Lab) warn(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Warnings = append(l.Warnings, text)
}

// Events calls f, from several goroutines, with every event of the lab's tunnels from now on, until ctx ends.
func (l *Lab) Events(ctx context.Context, f func(agent.Event)) error {
	for _, n := range l.nodes {
		if n.agent == nil {
			continue
		}
		if err := n.agent.Events(ctx, f); err != nil {
			return err
		}
	}
	return nil
}

// Advance moves the clock of a lab that was made with Options.ManualClock.
func (l *Lab) Advance(ctx context.Context, d time.Duration) error {
	for _, n := range l.Plan.Nodes {
		if a := l.nodes[n.Name].agent; a != nil {
			if err := a.Advance(ctx, d); err != nil {
				return err
			}
		}
	}
	return nil
}

// Node is a node by its name; nil if the plan has none of that name.
func (l *Lab) Node(name string) *Node { return l.nodes[name] }

// Tunnel is a tunnel by its name; nil if the plan has none of that name.
func (l *Lab) Tunnel(name string) *Tunnel { return l.tunnels[name] }

// Link is a link by its name; nil if the plan has none of that name.
func (l *Lab) Link(name string) *links.Link { return l.links[name] }

// ShapedBy names what gives the links their shapes: "tbf", "netem", "wire", "none" where there is nothing to give, or several of
// them.
func (l *Lab) ShapedBy() string {
	var names []string
	for _, p := range l.Plan.Links {
		if name := l.links[p.Name].State().Shaper; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, "+")
}
