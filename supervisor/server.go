package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	requestTimeout = 10 * time.Second // for a client to say what it wants, and to take the answer
	statusTimeout  = 10 * time.Second
	linkTimeout    = 10 * time.Second
	downTimeout    = time.Minute
	hangupGrace    = 2 * time.Second
	maxClients     = 256
)

// Serve answers clients until ctx ends or one of them asks for the lab to be taken down. Then it hangs up the commands
// that run in the lab, takes it down, closes the listener and returns the errors of that. It owns listener and lab.
func Serve(ctx context.Context, listener net.Listener, lab Lab) error {
	l, ok := listener.(*net.UnixListener)
	if !ok {
		return errors.Join(fmt.Errorf("serving a lab: listener is a %T, must be a unix socket's", listener), lab.Down(ctx))
	}
	s := server{listener: l, grace: hangupGrace}
	return s.run(ctx, func(context.Context) (Lab, error) { return lab, nil }, func() error { return nil })
}

type server struct {
	listener *net.UnixListener
	name     string   // of the lab; may be empty
	log      *os.File // given to each client; may be nil
	grace    time.Duration

	me     identity
	stop   context.CancelFunc // begins the end
	down   chan struct{}      // closed when the lab is down
	result error              // of taking it down; read after down is closed
	conns  sync.WaitGroup

	mu      sync.Mutex
	fault   error // why the lab ends, if nobody asked for it
	state   State
	lab     Lab             // not nil when running
	exec    context.Context // ends when commands shall
	execs   sync.WaitGroup  // added to while running only
	clients int
}

// run is the life of a lab: up makes it, ready is called when clients can use it. An error of ready ends it.
func (s *server) run(ctx context.Context, up func(context.Context) (Lab, error), ready func() error) error {
	defer waitFor(&s.conns, s.grace+requestTimeout)
	defer s.listener.Close()
	var err error
	if s.me, err = whoAmI(); err != nil {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	var endExecs context.CancelFunc
	s.exec, endExecs = context.WithCancel(context.WithoutCancel(ctx))
	defer endExecs()
	s.down = make(chan struct{})
	defer close(s.down)
	s.state = Starting
	s.conns.Go(s.accept)

	lab, err := up(ctx)
	if err != nil {
		s.setState(Stopping, nil)
		if ctx.Err() != nil {
			err = withoutCancellation(err)
		}
		s.result = errors.Join(s.reason(), err)
		return s.result
	}
	s.setState(Running, lab)
	if err := ready(); err != nil {
		s.fail(err)
	}
	<-ctx.Done()
	s.setState(Stopping, nil)
	endExecs()
	if !waitFor(&s.execs, s.grace+time.Second) {
		s.fail(errors.New("a command in the lab does not end"))
	}
	downCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), downTimeout)
	defer cancel()
	s.result = errors.Join(s.reason(), lab.Down(downCtx))
	return s.result
}

// fail ends the lab because of an error.
func (s *server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = errors.Join(s.fault, err)
	s.stop()
}

func (s *server) reason() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// withoutCancellation drops from what an interrupted start returned that it was interrupted.
func withoutCancellation(err error) error {
	var rest []error
	for _, e := range split(err) {
		if !errors.Is(e, context.Canceled) {
			rest = append(rest, e)
		}
	}
	return errors.Join(rest...)
}

// waitFor says whether the group was done in time. If not, a goroutine goes on waiting.
func waitFor(g *sync.WaitGroup, limit time.Duration) bool {
	done := make(chan struct{})
	go func() { g.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(limit):
		return false
	}
}

func (s *server) setState(state State, lab Lab) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.lab = state, lab
}

// running gives the lab, or why there is none.
func (s *server) running() (Lab, State) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lab, s.state
}

func (s *server) accept() {
	for {
		c, err := s.listener.AcceptUnix()
		switch {
		case err == nil:
			s.conns.Go(func() { s.handle(c) })
		case errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM) ||
			errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ECONNABORTED):
			select { // until descriptors are free again
			case <-time.After(50 * time.Millisecond):
			case <-s.down:
			}
		default:
			s.fail(fmt.Errorf("accepting clients: %w", err))
			return
		}
	}
}

// admit says why a client may not come in; leave undoes it.
func (s *server) admit(c *net.UnixConn) error {
	cred, err := peer(c)
	if err != nil {
		return err
	}
	if !s.me.serves(cred.Uid) {
		return fmt.Errorf("%w: the lab serves its owner and root, not user %d", ErrDenied, cred.Uid)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clients == maxClients {
		return fmt.Errorf("%w: %d", ErrBusy, maxClients)
	}
	s.clients++
	return nil
}

func (s *server) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clients--
}

func (s *server) handle(c *net.UnixConn) {
	defer c.Close()
	c.SetDeadline(time.Now().Add(requestTimeout))
	hello := greeting{Version: protocolVersion}
	if err := s.admit(c); err != nil {
		w := toWire(err)
		hello.Error = &w
		send(c, hello, maxReply)
		return
	}
	defer s.leave()
	var logs []*os.File
	if s.log != nil {
		logs = append(logs, s.log)
	}
	if err := send(c, hello, maxReply, logs...); err != nil {
		return
	}
	var q request
	files, err := receive(c, &q, maxRequest, 3)
	if err != nil {
		refuse(c, err)
		return
	}
	defer closeAll(files)
	if q.Version != protocolVersion {
		refuse(c, fmt.Errorf("%w: version %d is asked for, this is %d", ErrProtocol, q.Version, protocolVersion))
		return
	}
	switch q.Op {
	case opStatus:
		s.status(c)
	case opExec:
		s.execute(c, q.Exec, files)
	case opLink:
		s.setLink(c, q.Link)
	case opDown:
		s.takeDown(c)
	case opCapture:
		s.capture(c, q.Capture)
	default:
		refuse(c, fmt.Errorf("%w: no operation %.40q", ErrProtocol, q.Op))
	}
}

// answer sends a reply. That the client has gone is the client's affair.
func answer(c *net.UnixConn, r reply) {
	c.SetWriteDeadline(time.Now().Add(requestTimeout))
	if err := send(c, r, maxReply); errors.Is(err, ErrProtocol) { // too large
		send(c, reply{Errors: []wireError{toWire(err)}}, maxReply)
	}
}

func refuse(c *net.UnixConn, err error) {
	var r reply
	for _, e := range split(err) {
		r.Errors = append(r.Errors, toWire(e))
	}
	answer(c, r)
}

func (s *server) status(c *net.UnixConn) {
	lab, state := s.running()
	st := Status{Name: s.name}
	if lab != nil {
		ctx, cancel := context.WithTimeout(context.Background(), statusTimeout)
		defer cancel()
		var err error
		if st, err = lab.Status(ctx); err != nil {
			refuse(c, err)
			return
		}
	}
	if s.name != "" {
		st.Name = s.name
	}
	st.State, st.PID = state, os.Getpid()
	answer(c, reply{Status: &st})
}

func (s *server) setLink(c *net.UnixConn, q *linkRequest) {
	lab, state := s.running()
	switch {
	case q == nil:
		refuse(c, fmt.Errorf("%w: link without a request", ErrProtocol))
		return
	case state != Running:
		refuse(c, fmt.Errorf("%w: it is %s", ErrState, state))
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), linkTimeout)
	defer cancel()
	now, err := lab.SetLink(ctx, q.Link, q.From, q.Change)
	if err != nil {
		refuse(c, err)
		return
	}
	answer(c, reply{Link: &now})
}

func (s *server) takeDown(c *net.UnixConn) {
	s.stop()
	<-s.down
	refuse(c, s.result) // no error is no refusal
}
