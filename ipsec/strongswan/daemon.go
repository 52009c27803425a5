// Package strongswan keys tunnels by strongSwan: one charon in a node, which does classical IKEv2 (RFC 7296) with raw Ed25519
// keys over X25519, and installs SAs and policies in the node's kernel itself. It is what a post-quantum tunnel is compared
// with, so everything else is as in package xfrm: AES-256-GCM with extended sequence numbers, an xfrm interface, plaintext
// refused, and limits that are never late.
//
// charon tells what it does by its vici socket, the kernel what SAs carried by netlink: every count is the kernel's.
package strongswan

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"pqlab/internal/xfrmnl"
	"pqlab/ipsec"
	"pqlab/ipsec/strongswan/vici"
	"pqlab/ipsec/xfrm"
)

// Errors of a Daemon that a caller may decide on, besides those of package ipsec.
var (
	// ErrClosed: the daemon was closed.
	ErrClosed = errors.New("strongSwan was closed")
	// ErrEnded: charon ended though nobody had asked it to.
	ErrEnded = errors.New("charon has ended")
	// ErrTrusted: a tunnel knows its peer already.
	ErrTrusted = errors.New("its peer is known already")
	// ErrSilent: the peer did not answer in time.
	ErrSilent = errors.New("the peer does not answer")
	// ErrDown: a tunnel that is not keyed.
	ErrDown = errors.New("it has no keys")
)

// Tunnel is one end of a tunnel.
type Tunnel struct {
	Policy   ipsec.Policy
	Limits   ipsec.Limits
	Deadline time.Duration // of each of the two round trips of the first exchange; 0: 5 s
	// OnTraffic makes a packet that finds no SA begin an exchange.
	OnTraffic bool
}

// State is what a tunnel stands at.
type State struct {
	SPIs    ipsec.SPIPair
	In, Out ipsec.Counters
	Drops   ipsec.Drops
}

// Exchange is what one exchange of IKE took, as one end saw it.
type Exchange struct {
	Took                           time.Duration // until this end had the SAs; of the end that answers: 0
	Sent, Received                 uint64        // bytes of UDP payload
	MessagesSent, MessagesReceived uint64
}

// Event is one thing that happened to a tunnel.
type Event struct {
	ipsec.Event
	Exchange Exchange // of Established, and without bytes of Rekeyed
}

// Daemon is a charon that keys the tunnels of one node. Its methods may be called from any goroutine.
type Daemon struct {
	version string
	charon  *process
	client  vici.Client
	events  chan Event
	lost    atomic.Uint64
	stop    context.CancelFunc
	running sync.WaitGroup

	mu      sync.Mutex // guards what follows; never held while charon is waited for
	kernel  *kernel
	tunnels map[string]*tunnel
	closed  bool
	ended   error
}

// tunnel is guarded by Daemon.mu.
type tunnel struct {
	Tunnel
	public  []byte // our key
	keyID   string // charon's name for our private key
	trusted bool
	largest int
	soft    ipsec.Limits  // that this end watches
	changed chan struct{} // closed and replaced when the SAs in use do

	in, out  uint32
	up       bool
	began    time.Time // of the exchange under way
	before   exchanged // counted then
	trigger  ipsec.Trigger
	usage    ipsec.Usage             // at the trigger
	replaced []*replacement          // and not told of yet
	retiring map[uint32]bool         // inbound SAs that were replaced
	final    map[uint32]xfrmnl.State // of SAs that are gone and have not been told of
	drops    ipsec.Drops             // of SAs that are gone
}

// replacement is a rekey that is not over: the old outbound SA is not gone.
type replacement struct {
	Event
	contested bool // both ends began, and it is not known yet which of the new SAs stay
}

// eventBuffer is how many events wait for a slow reader before further ones are dropped and counted.
const eventBuffer = 4096

// New starts charon in the network namespace of the process. What the machine lacks is errors.ErrUnsupported.
func New(ctx context.Context, i Installation) (_ *Daemon, err error) {
	d := &Daemon{tunnels: map[string]*tunnel{}, events: make(chan Event, eventBuffer)}
	if d.kernel, err = openKernel(); err != nil {
		return nil, fmt.Errorf("strongSwan: %w", err)
	}
	running, stop := context.WithCancel(context.Background())
	d.stop = stop
	defer func() {
		if err != nil {
			stop()
			if d.charon != nil {
				err = errors.Join(err, d.charon.stop(0))
			}
			err = fmt.Errorf("strongSwan: %w", errors.Join(err, d.kernel.close()))
			d.running.Wait()
		}
	}()
	if d.charon, err = start(ctx, i); err != nil {
		return nil, err
	}
	d.client = vici.Client{Dial: d.charon.dial}
	version, err := d.client.Call(ctx, "version", nil)
	if err != nil {
		return nil, err
	}
	d.version = version.Value("version")
	d.running.Add(1)
	if err := d.client.Listen(running, d.heard, func(err error) { d.deaf(err); d.running.Done() }, "child-updown", "child-rekey"); err != nil {
		d.running.Done()
		return nil, err
	}
	d.running.Go(d.watch)
	return d, nil
}

// Name is the dataplane's: that of package xfrm where it has an interface.
func (d *Daemon) Name() string { return "xfrm/interface" }

// Version is strongSwan's: "5.9.8".
func (d *Daemon) Version() string { return d.version }

// Log is what charon has written.
func (d *Daemon) Log() string { return d.charon.log.String() }

// Events gives what happens to the tunnels, for one reader. It is closed by Close.
func (d *Daemon) Events() <-chan Event { return d.events }

// LostEvents is the number of events that found no room.
func (d *Daemon) LostEvents() uint64 { return d.lost.Load() }

// find must be called with the lock held.
func (d *Daemon) find(name string) (*tunnel, error) {
	switch t := d.tunnels[name]; {
	case d.closed:
		return nil, ErrClosed
	case d.ended != nil:
		return nil, d.ended
	case t == nil:
		return nil, fmt.Errorf("tunnel %s: %w", name, ipsec.ErrUnknown)
	default:
		return t, nil
	}
}

// Add makes one end of a tunnel and gives its public key, for the peer's Trust. From its return on no plaintext between
// the policy's subnets enters or leaves.
func (d *Daemon) Add(ctx context.Context, t Tunnel) (public []byte, err error) {
	name := t.Policy.Tunnel
	if t.Policy, err = t.Policy.Check(); err != nil {
		return nil, err
	}
	if t.Deadline <= 0 {
		t.Deadline = 5 * time.Second
	}
	n := &tunnel{
		Tunnel: t, largest: t.Policy.InnerMTU(t.Policy.PathMTU), soft: early(t.Limits, t.first()), changed: make(chan struct{}),
		retiring: map[uint32]bool{}, final: map[uint32]xfrmnl.State{},
	}
	if _, err := lifetimesOf(t.Limits, t.first(), n.largest); err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", name, err)
	}
	if err := d.install(n); err != nil {
		return nil, fmt.Errorf("tunnel %s: %w", name, err)
	}
	if n.public, n.keyID, err = d.newKey(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("tunnel %s: %w", name, err), d.Remove(ctx, name))
	}
	return n.public, nil
}

func (d *Daemon) install(t *tunnel) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	name := t.Policy.Tunnel
	if _, err := d.find(name); err == nil {
		return ipsec.ErrExists
	} else if !errors.Is(err, ipsec.ErrUnknown) {
		return err
	}
	for _, other := range d.tunnels {
		if err := t.Policy.Conflict(&other.Policy); err != nil {
			return err
		}
	}
	if err := d.kernel.add(t.Policy); err != nil {
		return err
	}
	d.tunnels[name] = t
	return nil
}

// first says whether this end begins rekeys, which exactly one of the two does.
func (t *Tunnel) first() bool { return t.Policy.Src.Less(t.Policy.Dst) }

// newKey gives charon a key and returns the public part and charon's name for it.
func (d *Daemon) newKey(ctx context.Context) (public []byte, id string, err error) {
	of, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, "", err
	}
	defer clear(key)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, "", err
	}
	defer clear(private)
	if public, err = x509.MarshalPKIXPublicKey(of); err != nil {
		return nil, "", err
	}
	m := new(vici.Message)
	m.Set("type", "any")
	m.Set("data", string(private))
	answer, err := d.client.Call(ctx, "load-key", m)
	if err != nil {
		return nil, "", err
	}
	return public, answer.Value("id"), nil
}

// Trust tells a tunnel its peer's public key. From then on it answers, and Establish may begin.
func (d *Daemon) Trust(ctx context.Context, name string, peer []byte) error {
	d.mu.Lock()
	t, err := d.find(name)
	if err == nil && t.trusted {
		err = fmt.Errorf("tunnel %s: %w", name, ErrTrusted)
	}
	if err != nil {
		d.mu.Unlock()
		return err
	}
	t.trusted = true
	d.mu.Unlock()
	life, err := lifetimesOf(t.Limits, t.first(), t.largest)
	if err == nil {
		_, err = d.client.Call(ctx, "load-conn", connection(&t.Tunnel, life, t.public, peer))
	}
	if err != nil {
		return fmt.Errorf("tunnel %s: %w", name, err)
	}
	return nil
}

// Establish keys a tunnel from this end, unless it is keyed already. It is ErrSilent if the peer does not answer.
func (d *Daemon) Establish(ctx context.Context, name string) (Exchange, ipsec.SPIPair, error) {
	d.mu.Lock()
	t, err := d.find(name)
	if err != nil || t.up {
		defer d.mu.Unlock()
		if err != nil {
			return Exchange{}, ipsec.SPIPair{}, err
		}
		return Exchange{}, ipsec.SPIPair{In: t.in, Out: t.out}, nil
	}
	err = d.begin(t, ipsec.OnDemand)
	began, before := t.began, t.before
	d.mu.Unlock()
	if err != nil {
		return Exchange{}, ipsec.SPIPair{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	err = d.initiate(ctx, name, 2*t.Deadline)
	took := time.Since(began)
	if err != nil {
		return Exchange{}, ipsec.SPIPair{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	if err := d.wait(ctx, name, func(t *tunnel) bool { return t.up }); err != nil {
		return Exchange{}, ipsec.SPIPair{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	x, err := d.exchanged(t, before)
	x.Took = took
	return x, ipsec.SPIPair{In: t.in, Out: t.out}, err
}

// initiate has charon key a tunnel within limit. If the peer has not answered until then, or for so long that charon gives up,
// it is ErrSilent: charon's answer to the command has no other sign of that than its text.
func (d *Daemon) initiate(ctx context.Context, name string, limit time.Duration) error {
	var said []string
	m := new(vici.Message)
	m.Set("ike", name)
	m.Set("child", name)
	m.Set("timeout", fmt.Sprint(limit.Milliseconds()))
	m.Set("loglevel", "1")
	began := time.Now()
	_, err := d.client.Stream(ctx, "initiate", "control-log", m, func(m *vici.Message) { said = append(said, m.Value("msg")) })
	if err == nil {
		return nil
	}
	if errors.Is(err, vici.ErrRefused) && time.Since(began) >= min(limit, persistence) {
		err = fmt.Errorf("%w: %w", ErrSilent, err)
	}
	return fmt.Errorf("%w; it says: %s", errors.Join(err, d.abandon(ctx, name)), strings.Join(said[max(0, len(said)-3):], "; "))
}

// begin notes where an exchange begins. The lock is held.
func (d *Daemon) begin(t *tunnel, trigger ipsec.Trigger) (err error) {
	t.began, t.trigger, t.usage = time.Now(), trigger, d.used(t)
	t.before, err = d.kernel.guard.read(&t.Policy)
	return err
}

// exchanged is what of IKE has passed since. The lock is held.
func (d *Daemon) exchanged(t *tunnel, before exchanged) (Exchange, error) {
	now, err := d.kernel.guard.read(&t.Policy)
	e := now.since(before)
	return Exchange{Sent: e.sent, Received: e.received, MessagesSent: e.packetsSent, MessagesReceived: e.packetsReceived}, err
}

// abandon makes charon give an exchange up that it would go on with.
func (d *Daemon) abandon(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	m := new(vici.Message)
	m.Set("ike", name)
	m.Set("force", "yes")
	m.Set("timeout", "-1")
	if _, err := d.client.Call(ctx, "terminate", m); err != nil && !errors.Is(err, vici.ErrRefused) { // nothing is left to end
		return err
	}
	return nil
}

// wait returns when done does, which is called with the lock held whenever the SAs of a tunnel change.
func (d *Daemon) wait(ctx context.Context, name string, done func(*tunnel) bool) error {
	for {
		d.mu.Lock()
		t, err := d.find(name)
		if err != nil || done(t) {
			d.mu.Unlock()
			return err
		}
		changed := t.changed
		d.mu.Unlock()
		select {
		case <-changed:
		case <-d.charon.done:
			return fmt.Errorf("%w: %w", ErrEnded, d.charon.ended)
		case <-ctx.Done():
			return fmt.Errorf("tunnel %s: no new SAs: %w", name, context.Cause(ctx))
		}
	}
}

// Rekey replaces the SAs from this end (a CREATE_CHILD_SA exchange with a new X25519 exchange in it), and returns when this
// end uses the new ones and the peer has been told that it may.
func (d *Daemon) Rekey(ctx context.Context, name string) (Exchange, ipsec.SPIPair, error) {
	d.mu.Lock()
	t, err := d.find(name)
	if err == nil && !t.up {
		err = fmt.Errorf("tunnel %s: %w", name, ErrDown)
	}
	if err == nil && t.trigger == "" {
		err = d.begin(t, ipsec.OnDemand)
	}
	if err != nil {
		d.mu.Unlock()
		return Exchange{}, ipsec.SPIPair{}, err
	}
	began, before, old := t.began, t.before, t.in
	d.mu.Unlock()
	m := new(vici.Message)
	m.Set("ike", name)
	m.Set("child", name)
	if _, err := d.client.Call(ctx, "rekey", m); err != nil {
		return Exchange{}, ipsec.SPIPair{}, fmt.Errorf("tunnel %s: %w", name, err)
	}
	if err := d.wait(ctx, name, func(t *tunnel) bool { return t.in != old && len(t.replaced) == 0 }); err != nil {
		return Exchange{}, ipsec.SPIPair{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	x, err := d.exchanged(t, before)
	x.Took = time.Since(began)
	return x, ipsec.SPIPair{In: t.in, Out: t.out}, err
}

// State of a tunnel; an empty name gives the drops that belong to none.
func (d *Daemon) State(name string) (s State, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if name == "" {
		s.Drops, err = d.homeless()
		return s, err
	}
	t, err := d.find(name)
	if err != nil {
		return s, err
	}
	s.SPIs = ipsec.SPIPair{In: t.in, Out: t.out}
	used := d.used(t)
	s.In, s.Out = used.In, used.Out
	if s.Drops, err = d.refused(t); err != nil {
		return s, err
	}
	if len(d.tunnels) == 1 { // then what the kernel counts for the namespace is its own
		rest, err := d.remaining()
		if err != nil {
			return s, err
		}
		s.Drops.NoSA, s.Drops.Expired = rest.NoSA, rest.Expired
	}
	return s, nil
}

// homeless are the drops that belong to no tunnel. The lock is held.
func (d *Daemon) homeless() (ipsec.Drops, error) {
	rest, err := d.remaining()
	if len(d.tunnels) == 1 {
		rest.NoSA, rest.Expired = 0, 0
	}
	return rest, err
}

// remaining is what the kernel refused, without what the tunnels' SAs say is theirs. The lock is held.
func (d *Daemon) remaining() (ipsec.Drops, error) {
	rest, err := d.kernel.refused()
	for _, t := range d.tunnels {
		of := d.ofSAs(t)
		rest.Replay -= min(rest.Replay, of.Replay)
		rest.Malformed -= min(rest.Malformed, of.Integrity) // the kernel counts both as one
	}
	return rest, err
}

// refused is what of a tunnel was refused. The lock is held.
func (d *Daemon) refused(t *tunnel) (drops ipsec.Drops, err error) {
	drops = d.ofSAs(t)
	drops.Plaintext, err = d.kernel.filter.Refused(t.Policy.Tunnel)
	return drops, err
}

func (d *Daemon) ofSAs(t *tunnel) ipsec.Drops {
	drops := t.drops
	for spi := range t.retiring {
		d.addInbound(&drops, t, spi)
	}
	if t.in != 0 {
		d.addInbound(&drops, t, t.in)
	}
	return drops
}

func (d *Daemon) addInbound(to *ipsec.Drops, t *tunnel, spi uint32) {
	if s, err := d.kernel.conn.GetSA(t.Policy.Src, spi); err == nil {
		addRefused(to, s)
	}
}

func addRefused(to *ipsec.Drops, s xfrmnl.State) {
	to.Replay += s.Late + s.Replayed
	to.Integrity += s.Forged
}

// used reads the counters of the SAs in use; one that the kernel has removed counts what it had then. The lock is held.
func (d *Daemon) used(t *tunnel) (u ipsec.Usage) {
	if t.in != 0 {
		u.In = d.countersOf(t, t.in, false)
	}
	if t.out != 0 {
		u.Out = d.countersOf(t, t.out, true)
	}
	return u
}

func (d *Daemon) countersOf(t *tunnel, spi uint32, outbound bool) ipsec.Counters {
	dst := t.Policy.Src
	if outbound {
		dst = t.Policy.Dst
	}
	s, err := d.kernel.conn.GetSA(dst, spi)
	if errors.Is(err, unix.ESRCH) {
		s = t.final[spi]
	}
	return xfrm.Counted(s, outbound)
}

// Remove removes one end of a tunnel with its SAs, and tells the peer.
func (d *Daemon) Remove(ctx context.Context, name string) error {
	d.mu.Lock()
	t, err := d.find(name)
	d.mu.Unlock()
	if err != nil {
		return err
	}
	var errs []error
	if t.trusted {
		m := new(vici.Message)
		m.Set("name", name)
		_, err := d.client.Call(ctx, "unload-conn", m)
		errs = append(errs, err, d.abandon(ctx, name))
	}
	if t.keyID != "" {
		m := new(vici.Message)
		m.Set("id", t.keyID)
		_, err := d.client.Call(ctx, "unload-key", m)
		errs = append(errs, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tunnels[name] == t {
		delete(d.tunnels, name)
		errs = append(errs, d.kernel.remove(name))
		d.emit(t, Event{Event: ipsec.Event{Kind: ipsec.Removed, Old: ipsec.SPIPair{In: t.in, Out: t.out}}})
		close(t.changed)
	}
	return errors.Join(errs...)
}

// closePatience is how long charon may take to end.
const closePatience = 2 * time.Second

// Close ends charon and removes everything that it and the daemon made. A second Close does nothing.
func (d *Daemon) Close() error {
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return nil
	}
	d.closed = true
	d.mu.Unlock()
	d.stop()
	err := d.charon.stop(closePatience)
	d.mu.Lock()
	err = errors.Join(err, d.kernel.close())
	d.mu.Unlock()
	d.running.Wait()
	close(d.events)
	return err
}
