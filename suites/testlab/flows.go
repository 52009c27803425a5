package testlab

import (
	"cmp"
	"context"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"pqlab/agent"
	"pqlab/lab"
	"pqlab/traffic"
)

// Flow is a flow of one stream between two nodes. Source.From is its address at From.
type Flow struct {
	From, To string
	At       netip.Addr // at To
	Source   agent.Source
	Quiet    time.Duration // of the sink, on a machine with a processor of its own; 0 is that of labs
}

// Quiet is how long nothing has to come until what is missing is lost.
func Quiet() time.Duration { return max(traffic.DefaultQuiet, Patience(250*time.Millisecond)) }

// Unhurried is a Quiet for flows of which all is to arrive: it costs time only where something does not.
const Unhurried = 3 * time.Second

// Send returns when all is sent. finish, which is not nil then, gives what arrived of it.
func (f Flow) Send(ctx context.Context, l *lab.Lab) (finish func() (traffic.Result, error), err error) {
	f.Source.Flow, f.Source.Streams = rand.Uint64(), 1
	sink := l.Node(f.To).Agent()
	at, err := sink.OpenSink(ctx, agent.Sink{
		Proto: f.Source.Proto, Listen: netip.AddrPortFrom(f.At, 0), Flow: f.Source.Flow, Streams: 1,
		Quiet: cmp.Or(Patience(f.Quiet), Quiet()),
	})
	if err != nil {
		return nil, err
	}
	f.Source.To = at.Addr
	sent, err := l.Node(f.From).Agent().Send(ctx, f.Source)
	if err != nil {
		return nil, err
	}
	return func() (traffic.Result, error) {
		got, err := sink.FinishSink(ctx, agent.Finish{ID: at.ID, Sent: sent})
		got.From = f.From
		return got, err
	}, nil
}

// Run sends a flow and gives what arrived of it.
func (f Flow) Run(ctx context.Context, l *lab.Lab) traffic.Result {
	GinkgoHelper()
	finish, err := f.Send(ctx, l)
	Expect(err).NotTo(HaveOccurred())
	got, err := finish()
	Expect(err).NotTo(HaveOccurred())
	return got
}

// Flows run beside a spec.
type Flows struct {
	sent     chan struct{} // closed when all of them are
	mu       sync.Mutex
	finishes []func() (traffic.Result, error)
	errs     []error
}

// Start begins to send.
func Start(ctx context.Context, l *lab.Lab, all ...Flow) *Flows {
	f := &Flows{sent: make(chan struct{})}
	var running sync.WaitGroup
	for _, flow := range all {
		flow.Quiet = Unhurried
		running.Go(func() {
			finish, err := flow.Send(ctx, l)
			f.mu.Lock()
			defer f.mu.Unlock()
			f.finishes, f.errs = append(f.finishes, finish), append(f.errs, err)
		})
	}
	go func() {
		running.Wait()
		close(f.sent)
	}()
	return f
}

// Sent says whether all has been sent.
func (f *Flows) Sent() bool {
	select {
	case <-f.sent:
		return true
	default:
		return false
	}
}

// Whole waits for what arrived, and fails if anything was lost on its way or came twice. Where a sink's socket was full
// nobody can tell what was lost before it: Balanced does of the tunnel.
func (f *Flows) Whole(ctx context.Context) {
	GinkgoHelper()
	Eventually(ctx, f.sent).Should(BeClosed())
	Expect(f.errs).To(HaveEach(BeNil()))
	for _, finish := range f.finishes {
		got, err := finish()
		Expect(err).NotTo(HaveOccurred())
		Expect(got.Bytes).NotTo(BeZero())
		Expect(got.Duplicated).To(BeZero())
		if got.SocketDrops > 0 {
			GinkgoWriter.Printf("%s from %s: the sink's socket was full %d times; %d of %d lost\n", got.Proto, got.From, got.SocketDrops, got.Lost, got.Sent)
			continue
		}
		Expect(got.Lost).To(BeZero(), "%s from %s: of %d: %+v", got.Proto, got.From, got.Sent, got.Losses)
	}
}

// Both are flows of a source in both directions between two nodes, with their addresses.
func Both(source agent.Source, ends [2]string, at [2]netip.Addr) (all []Flow) {
	for i, from := range ends {
		s := source
		s.From = at[i]
		all = append(all, Flow{From: from, To: ends[1-i], At: at[1-i], Source: s})
	}
	return all
}
