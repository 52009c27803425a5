package vici

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// Types of packets.
const (
	request       = 0
	response      = 1
	unknown       = 2
	register      = 3
	eventConfirm  = 5
	eventUnknown  = 6
	eventOccurred = 7
)

// maxPacket is what charon takes and gives at most, in bytes.
const maxPacket = 512 << 10

// Errors of a Client that a caller may decide on.
var (
	// ErrUnknown: charon has no such command or event; a plugin may be missing.
	ErrUnknown = errors.New("charon does not know it")
	// ErrRefused: the command was understood and failed.
	ErrRefused = errors.New("charon refused")
)

// Client sends commands, each over a connection of its own, so that none waits for another. Its methods are safe for
// concurrent use.
type Client struct {
	Dial func() (net.Conn, error) // to the socket; must be set
}

// Call sends a command and waits for the answer. One that says that the command failed is ErrRefused, with the answer.
func (c Client) Call(ctx context.Context, command string, m *Message) (*Message, error) {
	return c.Stream(ctx, command, "", m, nil)
}

// Stream is Call of a command that tells its results by an event before it answers. each gets them, in order.
func (c Client) Stream(ctx context.Context, command, event string, m *Message, each func(*Message)) (*Message, error) {
	answer, err := c.stream(ctx, command, event, m, each)
	if err != nil {
		return answer, fmt.Errorf("charon: %s: %w", command, err)
	}
	return answer, nil
}

func (c Client) stream(ctx context.Context, command, event string, m *Message, each func(*Message)) (*Message, error) {
	p, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	defer p.close()
	if event != "" {
		if err := p.register(event); err != nil {
			return nil, p.why(err)
		}
	}
	if m == nil {
		m = new(Message)
	}
	if err := p.send(request, command, m); err != nil {
		return nil, p.why(err)
	}
	for {
		kind, name, got, err := p.receive()
		switch {
		case err != nil:
			return nil, p.why(err)
		case kind == eventOccurred && name == event:
			each(got)
		case kind == unknown:
			return nil, ErrUnknown
		case kind == response:
			if got.Value("success") == "no" {
				return got, fmt.Errorf("%w: %s", ErrRefused, got.Value("errmsg"))
			}
			return got, nil
		default:
			return nil, ErrMalformed
		}
	}
}

// Listen calls each with every event of the names from its return on, in order and one at a time, until ctx ends or
// charon does; then it calls done, with nil in the first case.
func (c Client) Listen(ctx context.Context, each func(event string, m *Message), done func(error), events ...string) error {
	p, err := c.open(ctx)
	if err != nil {
		return fmt.Errorf("charon: %w", err)
	}
	for _, event := range events {
		if err := p.register(event); err != nil {
			p.close()
			return fmt.Errorf("charon: event %s: %w", event, p.why(err))
		}
	}
	go func() {
		defer p.close()
		for {
			kind, name, m, err := p.receive()
			if err == nil && kind != eventOccurred {
				err = ErrMalformed
			}
			if err != nil {
				if ctx.Err() != nil {
					err = nil
				}
				done(err)
				return
			}
			each(name, m)
		}
	}()
	return nil
}

// port is one connection, which ends with its context.
type port struct {
	ctx  context.Context
	conn net.Conn
	stop func() bool
}

func (c Client) open(ctx context.Context) (*port, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	conn, err := c.Dial()
	if err != nil {
		return nil, err
	}
	return &port{ctx, conn, context.AfterFunc(ctx, func() { conn.Close() })}, nil
}

func (p *port) close() {
	p.stop()
	p.conn.Close()
}

// why prefers the reason for which the connection was closed.
func (p *port) why(err error) error {
	if p.ctx.Err() != nil {
		return context.Cause(p.ctx)
	}
	if errors.Is(err, io.EOF) {
		return fmt.Errorf("it hung up: %w", io.ErrUnexpectedEOF)
	}
	return err
}

// register asks for an event. None of another name has been asked for on a connection that has not sent its command.
func (p *port) register(event string) error {
	if err := p.send(register, event, nil); err != nil {
		return err
	}
	for {
		kind, _, _, err := p.receive()
		switch {
		case err != nil:
			return err
		case kind == eventConfirm:
			return nil
		case kind == eventUnknown:
			return ErrUnknown
		case kind != eventOccurred: // of a registration before
			return ErrMalformed
		}
	}
}

func (p *port) send(kind byte, name string, m *Message) error {
	b, err := appendName([]byte{0, 0, 0, 0, kind}, name)
	if err == nil && m != nil {
		b, err = m.append(b)
	}
	if err != nil {
		return err
	}
	if len(b)-4 > maxPacket {
		return fmt.Errorf("a packet of %d bytes; charon takes %d", len(b)-4, maxPacket)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	_, err = p.conn.Write(b)
	clear(b) // it may have held a key
	return err
}

func (p *port) receive() (kind byte, event string, m *Message, err error) {
	var size [4]byte
	if _, err := io.ReadFull(p.conn, size[:]); err != nil {
		return 0, "", nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxPacket {
		return 0, "", nil, ErrMalformed
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(p.conn, b); err != nil {
		return 0, "", nil, err
	}
	return packet(b)
}

// packet reads one that charon sent.
func packet(b []byte) (kind byte, event string, m *Message, err error) {
	if len(b) == 0 {
		return 0, "", nil, ErrMalformed
	}
	kind, b = b[0], b[1:]
	switch kind {
	case eventOccurred:
		if event, b, err = name(b); err != nil {
			return 0, "", nil, err
		}
		m, err = parse(b)
	case response:
		m, err = parse(b)
	case unknown, eventConfirm, eventUnknown:
		if len(b) > 0 {
			err = ErrMalformed
		}
	default:
		err = ErrMalformed
	}
	return kind, event, m, err
}
