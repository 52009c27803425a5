package agent

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

// serviceName is the gRPC service that an agent serves.
const serviceName = "pqlab.agent.v1.Agent"

// maxMessage is in bytes. A flow of a day has bins of tens of megabytes, and both ends are one program.
const maxMessage = 1 << 30

// codec carries the messages as JSON: both ends are the same binary, the messages are the Go types that the rooms
// already have, and nothing has to be generated.
type codec struct{}

func (codec) Name() string                       { return "json" }
func (codec) Marshal(v any) ([]byte, error)      { return json.Marshal(v) }
func (codec) Unmarshal(data []byte, v any) error { return json.Unmarshal(data, v) }

// method describes a call with one request and one answer.
func method[In, Out any](name string, call func(*Server, context.Context, In) (Out, error)) grpc.MethodDesc {
	return grpc.MethodDesc{
		MethodName: name,
		Handler: func(srv any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			var in In
			if err := decode(&in); err != nil {
				return nil, err
			}
			out, err := call(srv.(*Server), ctx, in)
			if err != nil {
				return nil, toStatus(err)
			}
			return &out, nil
		},
	}
}

// stream describes a call whose answers come one after the other. open prepares them: once it has returned, the client
// knows that it will miss none. The function that it returns sends until the call ends.
func stream[In, Out any](name string, open func(*Server, In) func(context.Context, func(Out) error) error) grpc.StreamDesc {
	return grpc.StreamDesc{
		StreamName:    name,
		ServerStreams: true,
		Handler: func(srv any, s grpc.ServerStream) error {
			var in In
			if err := s.RecvMsg(&in); err != nil {
				return err
			}
			run := open(srv.(*Server), in)
			ctx, cancel := context.WithCancel(s.Context())
			defer cancel()
			if err := s.SendHeader(nil); err != nil {
				cancel() // run is called all the same, because it ends what open began
			}
			return toStatus(run(ctx, func(out Out) error { return s.SendMsg(&out) }))
		},
	}
}

func invoke[Out any](ctx context.Context, c *Client, name string, in any) (Out, error) {
	var out Out
	if err := c.conn.Invoke(ctx, "/"+serviceName+"/"+name, in, &out, grpc.ForceCodec(codec{})); err != nil {
		return out, fromStatus(c.node, name, err)
	}
	return out, nil
}

// receive opens a stream and calls f with each answer until the stream ends or ctx does. It returns as soon as the
// server has accepted the call, so that nothing that happens afterwards is missed.
func receive[Out any](ctx context.Context, c *Client, name string, in any, f func(Out)) (done <-chan error, err error) {
	streaming, cancel := context.WithCancel(ctx) // gRPC keeps a stream until its context or itself ends
	defer func() {
		if err != nil {
			cancel()
			err = fromStatus(c.node, name, err)
		}
	}()
	s, err := c.conn.NewStream(streaming, &grpc.StreamDesc{ServerStreams: true}, "/"+serviceName+"/"+name, grpc.ForceCodec(codec{}))
	if err != nil {
		return nil, err
	}
	// EOF says that the call has ended already; RecvMsg tells why.
	if err := errors.Join(s.SendMsg(in), s.CloseSend()); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if header, err := s.Header(); err != nil {
		return nil, err
	} else if header == nil { // refused before it began
		return nil, s.RecvMsg(new(Out))
	}
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		for {
			var out Out
			if err := s.RecvMsg(&out); err != nil {
				if errors.Is(err, io.EOF) || ctx.Err() != nil {
					err = nil
				}
				ended <- fromStatus(c.node, name, err)
				return
			}
			f(out)
		}
	}()
	return ended, nil
}

const (
	// quiet is how long a connection on which calls wait is silent before the agent is asked whether it is there, and
	// silence is how long that may take on a busy machine. Then the calls fail: an agent that hangs holds nobody up for ever.
	quiet   = 10 * time.Second
	silence = 30 * time.Second
)

// dial makes a gRPC connection of the one stream that it is given.
func dial(conn net.Conn) (*grpc.ClientConn, error) {
	first := make(chan net.Conn, 1)
	first <- conn
	return grpc.NewClient("passthrough:///agent",
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: quiet, Timeout: silence}),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-first:
				return c, nil
			default:
				return nil, io.ErrClosedPipe // an agent has one control socket: when it is gone, so is the agent
			}
		}))
}

// single is a listener that hands out one connection, and reports its end.
type single struct {
	conn   chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newSingle(conn net.Conn) *single {
	s := &single{conn: make(chan net.Conn, 1), closed: make(chan struct{})}
	s.conn <- &notifyingConn{Conn: conn, closed: s.Close}
	return s
}

func (s *single) Accept() (net.Conn, error) {
	select {
	case c := <-s.conn:
		return c, nil
	case <-s.closed:
		return nil, net.ErrClosed
	}
}

func (s *single) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *single) Addr() net.Addr { return &net.UnixAddr{Name: "agent", Net: "unix"} }

type notifyingConn struct {
	net.Conn
	closed func() error
}

func (c *notifyingConn) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
