package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"pqlab/internal/clock"
	"pqlab/ipsec"
	"pqlab/ipsec/gateway"
	"pqlab/ipsec/gateway/port"
	"pqlab/ipsec/xfrm"
	"pqlab/pqc/exchange"
)

// service lists every call that an agent answers.
var service = grpc.ServiceDesc{
	ServiceName: serviceName,
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		method("Hello", (*Server).hello),
		method("AddTunnel", (*Server).addTunnel),
		method("Trust", (*Server).trust),
		method("Establish", (*Server).establish),
		method("Rekey", (*Server).rekey),
		method("Tunnel", (*Server).tunnelState),
		method("RemoveTunnel", (*Server).removeTunnel),
		method("Secrets", (*Server).secrets),
		method("Advance", (*Server).advance),
		method("Usage", (*Server).usage),
		method("Log", (*Server).log),
		method("OpenSink", (*Server).openSink),
		method("OpenRelay", (*Server).openRelay),
		method("Send", (*Server).send),
		method("FinishSink", (*Server).finishSink),
		method("CloseTraffic", (*Server).closeTraffic),
	},
	Streams: []grpc.StreamDesc{
		stream("Events", (*Server).streamEvents),
		stream("Export", (*Server).streamExports),
	},
}

// Server answers a lab's calls inside a node.
type Server struct {
	config  Config
	plane   func() (ipsec.Dataplane, error) // opens the dataplane, when the node gets its first tunnel
	running context.Context                 // ends with the agent
	stop    context.CancelFunc
	clock   clock.Clock
	manual  *clock.Manual // nil unless Config.ManualClock

	certificate tls.Certificate

	mu     sync.Mutex
	open   map[uint64]io.Closer // sinks and relays
	lastID uint64

	keying  keyingState
	events  broadcast
	exports exports
}

func newServer(c Config) (*Server, error) {
	certificate, err := certificateOf(c)
	if err != nil {
		return nil, err
	}
	s := &Server{config: c, open: map[uint64]io.Closer{}, clock: clock.Real{}, certificate: certificate}
	s.plane = func() (ipsec.Dataplane, error) { return openPlane(c) }
	s.running, s.stop = context.WithCancel(context.Background())
	if c.ManualClock {
		s.manual = clock.NewManual(time.Now())
		s.clock = s.manual
	}
	return s, nil
}

// openPlane opens the dataplane that an agent was told to use, in its own namespace.
func openPlane(c Config) (ipsec.Dataplane, error) {
	switch c.Dataplane {
	case "", "gateway":
		return gateway.New(gateway.Config{Port: port.Kind(c.Port)})
	case "xfrm":
		return xfrm.New(xfrm.Config{})
	}
	return nil, fmt.Errorf("unknown dataplane %q", c.Dataplane)
}

// serve answers the calls that come on conn, and returns when conn has ended, as it does with the lab, and every call has.
func (s *Server) serve(conn net.Conn) error {
	g := grpc.NewServer(grpc.ForceServerCodec(codec{}), grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: quiet / 2}))
	g.RegisterService(&service, s)
	err := g.Serve(newSingle(conn))
	s.stop()
	g.Stop()
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func certificateOf(c Config) (tls.Certificate, error) {
	if c.Certificate == "" {
		return exchange.NewIdentity(c.Node, nil)
	}
	certificate, err := tls.LoadX509KeyPair(c.Certificate, c.Certificate)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("certificate %s, which has to hold the key as well: %w", c.Certificate, err)
	}
	return certificate, nil
}

// Close ends everything that runs in the agent and wipes its keys.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	open := s.open
	s.open = map[uint64]io.Closer{}
	s.mu.Unlock()
	var errs []error
	for _, c := range open {
		errs = append(errs, c.Close())
	}
	return errors.Join(append(errs, s.keying.close())...)
}

// Greeting is what an agent says of itself.
type Greeting struct {
	Node string
	PID  int
	Pin  exchange.Pin // of the node's TLS certificate
}

func (s *Server) hello(context.Context, struct{}) (Greeting, error) {
	return Greeting{Node: s.config.Node, PID: os.Getpid(), Pin: exchange.PinOf(s.certificate.Leaf)}, nil
}

// Usage is what an agent holds and has used.
type Usage struct {
	CPU         time.Duration // user and system
	Goroutines  int
	Descriptors int
	Threads     int
	Heap        uint64 // bytes live, after a collection
}

// Usage tells what the agent uses, for reports and for specs that watch for leaks.
func (c *Client) Usage(ctx context.Context) (Usage, error) {
	return invoke[Usage](ctx, c, "Usage", struct{}{})
}

func (s *Server) usage(context.Context, struct{}) (Usage, error) {
	var ru unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
		return Usage{}, fmt.Errorf("getrusage: %w", err)
	}
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return Usage{}, err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return Usage{}, err
	}
	// The collection is not counted in CPU, which was read before.
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	return Usage{
		CPU:         time.Duration(ru.Utime.Nano() + ru.Stime.Nano()),
		Goroutines:  runtime.NumGoroutine(),
		Descriptors: len(fds) - 1, // one of them reads the directory
		Threads:     len(threads),
		Heap:        mem.HeapAlloc,
	}, nil
}

// Advance moves the clock of an agent that was started with ManualClock.
func (c *Client) Advance(ctx context.Context, d time.Duration) error {
	_, err := invoke[struct{}](ctx, c, "Advance", d)
	return err
}

func (s *Server) advance(_ context.Context, d time.Duration) (struct{}, error) {
	if s.manual == nil {
		return struct{}{}, fmt.Errorf("node %s runs by the machine's clock, which cannot be advanced", s.config.Node)
	}
	s.manual.Advance(d)
	return struct{}{}, nil
}
