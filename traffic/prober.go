package traffic

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Prober sends numbered datagrams one way and tells of each what became of it. The kernel says when one arrived, so that a
// process that runs late makes no delay longer. Its methods are for one goroutine.
type Prober struct {
	from, to *net.UDPConn
	size     int
	inside   func(func() error) error // runs a function where the receiver is
	refused  uint64                   // datagrams that found no room there before it began
	came     chan struct{}            // an arrival that Settle has not seen
	over     chan struct{}            // closed when nobody reads any more

	mu      sync.Mutex
	sent    []time.Time // by number
	arrived []Arrival
	damaged int
	err     error // of reading
}

// Arrival is a datagram that came.
type Arrival struct {
	Number int
	At     time.Time     // of the wall clock, by the receiving kernel
	Delay  time.Duration // since before it was given to the sending kernel
}

// Fates are what became of the datagrams of a Prober.
type Fates struct {
	Sent    []time.Time // by number
	Arrived []Arrival   // in that order
	Damaged int         // that came with other bytes than were sent; they are not among Arrived
}

// ErrReceiver says that the receiving socket was full, so that what is missing may have arrived.
var ErrReceiver = errors.New("the receiver was too slow")

// leastProbe is the number, in bytes.
const leastProbe = 4

// NewProber makes a prober of datagrams with size bytes of payload, at least 4, to an address. Each socket is made within
// from or to, which run a function where the sender or the receiver is.
func NewProber(from, to func(func() error) error, at netip.AddrPort, size int) (_ *Prober, err error) {
	if size < leastProbe {
		return nil, fmt.Errorf("a probe of %d bytes: it has at least %d", size, leastProbe)
	}
	p := &Prober{size: size, inside: to, came: make(chan struct{}, 1), over: make(chan struct{})}
	if err := to(func() (err error) {
		if p.refused, err = full(); err == nil {
			p.to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		}
		return err
	}); err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("probe: %w", err), p.to.Close())
		}
	}()
	if err := control(p.to, func(fd int) error {
		const room = 256 << 20 // for all: nobody need be quick
		setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, room)
		return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)
	}); err != nil {
		return nil, err
	}
	if err := from(func() (err error) {
		p.from, err = net.DialUDP("udp", nil, p.to.LocalAddr().(*net.UDPAddr))
		return err
	}); err != nil {
		return nil, err
	}
	go p.read()
	return p, nil
}

// Close ends it.
func (p *Prober) Close() error {
	err := errors.Join(p.from.Close(), p.to.Close())
	<-p.over
	return err
}

// Socket is the sending one, for options of it.
func (p *Prober) Socket() *net.UDPConn { return p.from }

// Send sends n datagrams, gap apart by an absolute schedule: what is late is sent at once. Without a gap it sends as fast
// as the socket takes them. What the sender's own queue refuses is lost, as on the way.
func (p *Prober) Send(ctx context.Context, n int, gap time.Duration) error {
	c := newClock()
	start := c.now()
	for i := range n {
		if gap > 0 && !sleepUntil(ctx, c, start.Add(time.Duration(i)*gap)) || ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := p.SendTogether(1); err != nil {
			return err
		}
	}
	return nil
}

// SendTogether sends n datagrams by one call: more than one takes a socket with UDP_SEGMENT set to the size.
func (p *Prober) SendTogether(n int) error {
	p.mu.Lock()
	var b []byte
	for range n {
		b = p.append(b, len(p.sent))
		p.sent = append(p.sent, time.Now())
	}
	p.mu.Unlock()
	if _, err := p.from.Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

// append appends a datagram.
func (p *Prober) append(b []byte, number int) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(number))
	for i := leastProbe; i < p.size; i++ {
		b = append(b, byte(number+i))
	}
	return b
}

// Settle waits until nothing has come for so long, and tells what became of all that was sent until now.
func (p *Prober) Settle(ctx context.Context, quiet time.Duration) (Fates, error) {
	return p.settle(ctx, quiet, func() bool { return false })
}

// Finish waits like Settle, but no longer than until as many have come as were sent.
func (p *Prober) Finish(ctx context.Context, quiet time.Duration) (Fates, error) {
	return p.settle(ctx, quiet, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.arrived)+p.damaged >= len(p.sent)
	})
}

func (p *Prober) settle(ctx context.Context, quiet time.Duration, enough func() bool) (Fates, error) {
	timer, since := time.NewTimer(quiet), time.Now()
	defer timer.Stop()
	again := func() {
		timer.Reset(quiet)
		since = time.Now()
	}
	for waiting := true; waiting && !enough(); {
		select {
		case <-p.came:
			again()
		case <-timer.C:
			// While this process stood still nothing could come: that was no quiet.
			if waiting = stoodStill(time.Since(since), quiet); waiting {
				again()
			}
		case <-p.over:
			waiting = false
		case <-ctx.Done():
			return Fates{}, context.Cause(ctx)
		}
	}
	// The socket counts what was corrupted, too, and its namespace other sockets, too.
	var drops uint32
	var refused uint64
	err := control(p.to, func(fd int) (err error) { drops, err = socketDrops(fd); return err })
	if err == nil && drops > 0 {
		err = p.inside(func() (err error) { refused, err = full(); return err })
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err = errors.Join(p.err, err); err != nil {
		return Fates{}, fmt.Errorf("probe: %w", err)
	}
	if drops > 0 && refused > p.refused {
		return Fates{}, fmt.Errorf("probe: %w: %d datagrams came and found no room", ErrReceiver, refused-p.refused)
	}
	return Fates{slices.Clone(p.sent), slices.Clone(p.arrived), p.damaged}, nil
}

func (p *Prober) read() {
	defer close(p.over)
	b, oob, want := make([]byte, p.size+1), make([]byte, 128), make([]byte, 0, p.size)
	for {
		n, control, _, _, err := p.to.ReadMsgUDP(b, oob)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			err = p.arrive(b[:n], oob[:control], want)
		}
		if err != nil {
			p.mu.Lock()
			p.err = err
			p.mu.Unlock()
			return
		}
		select {
		case p.came <- struct{}{}:
		default:
		}
	}
}

// arrive takes a datagram and what the kernel says beside it; want has room for one.
func (p *Prober) arrive(b, control, want []byte) error {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return err
	}
	if len(messages) != 1 || len(messages[0].Data) < 16 {
		return errors.New("the kernel tells no time of an arrival")
	}
	stamp := messages[0].Data // struct timespec
	at := time.Unix(int64(binary.NativeEndian.Uint64(stamp)), int64(binary.NativeEndian.Uint64(stamp[8:])))
	p.mu.Lock()
	defer p.mu.Unlock()
	number := -1
	if len(b) == p.size {
		number = int(binary.BigEndian.Uint32(b))
	}
	if number < 0 || number >= len(p.sent) || !bytes.Equal(b, p.append(want, number)) {
		p.damaged++
		return nil
	}
	p.arrived = append(p.arrived, Arrival{number, at, at.Sub(p.sent[number])})
	return nil
}

// Lost says of each datagram whether it did not come.
func (f Fates) Lost() []bool {
	lost := make([]bool, len(f.Sent))
	for i := range lost {
		lost[i] = true
	}
	for _, a := range f.Arrived {
		lost[a.Number] = false
	}
	return lost
}

// Missing counts those that did not come.
func (f Fates) Missing() (n int) {
	for _, l := range f.Lost() {
		if l {
			n++
		}
	}
	return n
}

// Bursts counts the runs of those that did not come.
func (f Fates) Bursts() (n int) {
	before := false
	for _, l := range f.Lost() {
		if l && !before {
			n++
		}
		before = l
	}
	return n
}

// Overtaken counts arrivals that came after one with a larger number (RFC 4737 section 3.3), and repeated those that had
// come already.
func (f Fates) Overtaken() (late, repeated int) {
	seen := make([]bool, len(f.Sent))
	highest := -1
	for _, a := range f.Arrived {
		switch {
		case seen[a.Number]:
			repeated++
		case a.Number < highest:
			late++
		}
		seen[a.Number] = true
		highest = max(highest, a.Number)
	}
	return late, repeated
}

// Delays are those of all arrivals, ascending.
func (f Fates) Delays() []time.Duration {
	d := make([]time.Duration, len(f.Arrived))
	for i, a := range f.Arrived {
		d[i] = a.Delay
	}
	slices.Sort(d)
	return d
}

// full counts the datagrams for which UDP sockets of this thread's namespace had no room.
func full() (n uint64, err error) {
	v4, err := os.ReadFile("/proc/thread-self/net/snmp")
	if err != nil {
		return 0, err
	}
	var names []string
	for line := range strings.Lines(string(v4)) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != "Udp:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		i := slices.Index(names, "RcvbufErrors")
		if i < 0 || i >= len(fields) {
			return 0, fmt.Errorf("/proc/net/snmp: RcvbufErrors: %w", errors.ErrUnsupported)
		}
		if n, err = strconv.ParseUint(fields[i], 10, 64); err != nil {
			return 0, fmt.Errorf("/proc/net/snmp: %w", err)
		}
	}
	v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
	if errors.Is(err, fs.ErrNotExist) { // a kernel without IPv6
		return n, nil
	}
	for line := range strings.Lines(string(v6)) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "Udp6RcvbufErrors" {
			more, err := strconv.ParseUint(fields[1], 10, 64)
			return n + more, err
		}
	}
	return n, err
}
