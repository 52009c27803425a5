package exchange

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

// ALPN names the protocol in the TLS handshake (RFC 7301).
const ALPN = "pqlab/1"

// maxReceived bounds what one exchange reads, TLS included: the largest suite needs about 15 KiB beside the
// certificates.
const maxReceived = 128 << 10

// alertPatience is how long the sending of an alert may hold up the side that gives up.
const alertPatience = time.Second

// meter counts what passes a connection and stops a peer that sends without end. Its fields belong to the goroutine
// that uses the channel.
type meter struct {
	net.Conn
	traffic *Traffic
	spoke   bool
	hold    bool   // what is written waits in held for the next reading, or for the first writing without hold
	held    []byte // so that the end of a client's handshake and its first message are one segment
}

func (m *meter) Write(b []byte) (int, error) {
	if m.hold {
		m.held = append(m.held, b...)
		return len(b), nil
	}
	if len(m.held) == 0 {
		return m.write(b)
	}
	before := len(m.held)
	n, err := m.write(append(m.held, b...))
	m.held = nil
	return max(0, n-before), err
}

// flush sends what is held.
func (m *meter) flush() error {
	if len(m.held) == 0 {
		return nil
	}
	_, err := m.write(m.held)
	m.held = m.held[:0]
	return err
}

func (m *meter) write(b []byte) (int, error) {
	n, err := m.Conn.Write(b)
	m.traffic.Sent += n
	m.spoke = m.spoke || n > 0
	return n, err
}

func (m *meter) Read(b []byte) (int, error) {
	if err := m.flush(); err != nil {
		return 0, err
	}
	if m.traffic.Received >= maxReceived {
		return 0, errEndless
	}
	if rest := maxReceived - m.traffic.Received; len(b) > rest {
		b = b[:rest]
	}
	n, err := m.Conn.Read(b)
	m.traffic.Received += n
	if m.spoke && n > 0 {
		m.traffic.RoundTrips++
		m.spoke = false
	}
	return n, err
}

var errEndless = fmt.Errorf("more than %d bytes in one exchange", maxReceived)

// channel sends and receives the messages of one exchange. It owns the connection.
type channel struct {
	raw      net.Conn
	tls      *tls.Conn
	deadline time.Duration // of a step
	until    time.Time     // when the connection's deadline is, if the channel has set it
	traffic  *Traffic
	tamper   func([]byte) []byte
	ctx      context.Context // of the call that is under way
	ended    bool            // the peer has ended the session, as it should
}

func newChannel(conn net.Conn, ep *Endpoint, traffic *Traffic) *channel {
	c := &channel{raw: conn, traffic: traffic, deadline: DefaultDeadline}
	c.setDeadline(ep.Deadline)
	return c
}

func (c *channel) setDeadline(d time.Duration) {
	if d > 0 {
		c.deadline = d
	}
}

// enter makes ctx the one that cancels what follows, until the returned function is called.
func (c *channel) enter(ctx context.Context) (leave func()) {
	c.ctx = ctx
	cancelled := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		c.raw.SetDeadline(time.Unix(1, 0))
		close(cancelled)
	})
	return func() {
		if !stop() {
			<-cancelled // so that it cannot hit the next call
			c.until = time.Time{}
		}
	}
}

// step gives the step that begins its time, less at most a 64th: moving the deadline costs as much as sealing a message,
// so it stays where it is while steps follow each other. The order matters: a context that ends before the check is seen
// by it, one that ends later overwrites the deadline.
func (c *channel) step() error {
	now := time.Now()
	if left := c.until.Sub(now); left < c.deadline-c.deadline/64 || left > c.deadline {
		c.until = now.Add(c.deadline)
		if err := c.raw.SetDeadline(c.until); err != nil {
			return err
		}
	}
	return c.ctx.Err()
}

// groupsOf says what a list of TLS groups means.
func groupsOf(groups []tls.CurveID) []tls.CurveID {
	if len(groups) == 0 {
		return []tls.CurveID{tls.X25519}
	}
	return groups
}

func tlsConfig(ep *Endpoint, groups []tls.CurveID) *tls.Config {
	return &tls.Config{
		Certificates:           []tls.Certificate{ep.Certificate},
		MinVersion:             tls.VersionTLS13,
		NextProtos:             []string{ALPN},
		CurvePreferences:       groupsOf(groups),
		SessionTicketsDisabled: true,
		// One record for a message; the default begins with small ones, for browsers.
		DynamicRecordSizingDisabled: true,
	}
}

// client does the initiator's side of the TLS handshake.
func (c *channel) client(ep *Endpoint, cfg *Config) (tlsSecrets, *Error) {
	conf := tlsConfig(ep, cfg.TLSGroups)
	conf.InsecureSkipVerify = true // Peer.verify is the verification, and knows pins
	conf.VerifyConnection = func(cs tls.ConnectionState) error {
		return cfg.Peer.verify(cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
	}
	return c.handshake(conf, tls.Client)
}

// server does the responder's side of the TLS handshake. Whom the certificate belongs to matters when the tunnel is
// known.
func (c *channel) server(ep *Endpoint) (tlsSecrets, *Error) {
	conf := tlsConfig(ep, ep.TLSGroups)
	conf.ClientAuth = tls.RequireAnyClientCert
	if ep.KeyLog != nil {
		conf.KeyLogWriter = sessionSecrets{ep.KeyLog}
	}
	return c.handshake(conf, tls.Server)
}

func (c *channel) handshake(conf *tls.Config, side func(net.Conn, *tls.Config) *tls.Conn) (tlsSecrets, *Error) {
	wire := &meter{Conn: c.raw, traffic: c.traffic, hold: true}
	c.tls = side(wire, conf)
	if err := c.step(); err != nil {
		return tlsSecrets{}, c.failure(typeTLS, err)
	}
	err := c.tls.Handshake()
	wire.hold = false
	if err != nil {
		wire.flush() // TLS's alert
		e := c.failure(typeTLS, err)
		if e.Alert != Timeout && e.Alert != Cancelled {
			e.Alert = BadCertificate
		}
		return tlsSecrets{}, e
	}
	state := c.tls.ConnectionState()
	if state.NegotiatedProtocol != ALPN {
		return tlsSecrets{}, fail(typeTLS, BadMessage, fmt.Errorf("peer does not speak %s (ALPN %q)", ALPN, state.NegotiatedProtocol))
	}
	var keys tlsSecrets
	if keys.key, err = state.ExportKeyingMaterial(labelTLSKey, nil, 32); err != nil {
		return tlsSecrets{}, fail(typeTLS, Internal, err)
	}
	if keys.binding, err = state.ExportKeyingMaterial(labelBinding, nil, 32); err != nil {
		clear(keys.key)
		return tlsSecrets{}, fail(typeTLS, Internal, err)
	}
	return keys, nil
}

// checkGroup refuses a TLS session whose group the tunnel does not allow.
func (c *channel) checkGroup(cfg *Config) error {
	group, allowed := c.tls.ConnectionState().CurveID, groupsOf(cfg.TLSGroups)
	if !slices.Contains(allowed, group) {
		return fmt.Errorf("%w: %v, want one of %v", ErrTLSGroup, group, allowed)
	}
	return nil
}

// send writes one message.
func (c *channel) send(t messageType, message []byte) *Error {
	if c.tamper != nil {
		message = c.tamper(message)
	}
	if err := c.step(); err != nil {
		return c.failure(t, err)
	}
	if _, err := c.tls.Write(message); err != nil {
		return c.failure(t, err)
	}
	c.traffic.MessagesSent++
	return nil
}

// receive reads one message of type t, header included, with a body of at most limit bytes. Nothing is allocated
// before the length is known to be allowed.
func (c *channel) receive(t messageType, limit int) ([]byte, *Error) {
	if err := c.step(); err != nil {
		return nil, c.failure(t, err)
	}
	var header [headerSize]byte
	if _, err := io.ReadFull(c.tls, header[:]); err != nil {
		return nil, c.failure(t, err)
	}
	got, size := messageType(header[0]), int(header[1])<<16|int(header[2])<<8|int(header[3])
	if got == typeAlert && size == 1 {
		var code [1]byte
		if _, err := io.ReadFull(c.tls, code[:]); err != nil {
			return nil, c.failure(t, err)
		}
		c.traffic.MessagesReceived++
		return nil, &Error{Step: t.String(), Alert: Alert(code[0]), Remote: true}
	}
	if got != t {
		return nil, fail(t, BadMessage, fmt.Errorf("%v came, want %v", got, t))
	}
	if size > limit {
		return nil, fail(t, BadMessage, fmt.Errorf("body of %d bytes, want at most %d", size, limit))
	}
	message := make([]byte, headerSize+size)
	copy(message, header[:])
	if _, err := io.ReadFull(c.tls, message[headerSize:]); err != nil {
		return nil, c.failure(t, err)
	}
	c.traffic.MessagesReceived++
	return message, nil
}

// awaitEnd returns when the peer has ended the session, which is how it acknowledges the last message.
func (c *channel) awaitEnd(t messageType) *Error {
	if err := c.step(); err != nil {
		return c.failure(t, err)
	}
	var next [headerSize + 1]byte
	n, err := io.ReadFull(c.tls, next[:])
	switch {
	case n == 0 && errors.Is(err, io.EOF):
		c.ended = true
		return nil
	case err != nil:
		return c.failure(t, err)
	case messageType(next[0]) == typeAlert:
		c.traffic.MessagesReceived++
		return &Error{Step: t.String(), Alert: Alert(next[headerSize]), Remote: true}
	}
	return fail(t, BadMessage, errors.New("more came after the last message"))
}

// failure says what an error of the connection means.
func (c *channel) failure(t messageType, err error) *Error {
	switch ctxErr := c.ctx.Err(); {
	case errors.Is(ctxErr, context.DeadlineExceeded):
		return fail(t, Timeout, ctxErr)
	case ctxErr != nil:
		return fail(t, Cancelled, context.Cause(c.ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(t, Timeout, fmt.Errorf("nothing for %v: %w", c.deadline, err))
	case errors.Is(err, errEndless):
		return fail(t, BadMessage, err)
	}
	return fail(t, Disconnected, err)
}

// close ends the exchange. Without an error it says TLS's goodbye, which acknowledges the last message. With an error that
// this side found it tells the peer, as far as that is possible, and says no goodbye.
func (c *channel) close(e *Error) {
	if e == nil && !c.ended {
		c.tls.Close()
		return
	}
	if e != nil && !e.Remote && c.tls != nil && c.tls.ConnectionState().HandshakeComplete {
		switch e.Alert {
		case Disconnected, BadCertificate:
		default:
			c.raw.SetDeadline(time.Now().Add(min(c.deadline, alertPatience)))
			if _, err := c.tls.Write(encodeAlert(e.Alert)); err == nil {
				c.traffic.MessagesSent++
			}
		}
	}
	c.raw.Close()
}
