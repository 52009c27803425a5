package agent

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"

	"google.golang.org/grpc"
)

// Client is a lab's end of an agent's control socket. Its methods may be called from any goroutine.
type Client struct {
	node   string
	conn   *grpc.ClientConn
	socket net.Conn // conn takes it with the first call
}

// Connect makes a control socket: the client, and the descriptor that the agent inherits as its first file after
// standard error. The caller closes the descriptor once the agent has been started.
func Connect(node string) (*Client, *os.File, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("node %s: control socket: %w", node, err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "control")
	ours := os.NewFile(uintptr(fds[0]), "control")
	defer ours.Close() // FileConn duplicates it
	stream, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("node %s: control socket: %w", node, err)
	}
	conn, err := dial(stream)
	if err != nil {
		stream.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("node %s: control socket: %w", node, err)
	}
	return &Client{node: node, conn: conn, socket: stream}, theirs, nil
}

// Close ends the control socket, and so the agent.
func (c *Client) Close() error {
	err := c.conn.Close()
	c.socket.Close() // again, unless there was no call
	return err
}

// Hello waits until the agent serves and gives its TLS identity's pin.
func (c *Client) Hello(ctx context.Context) (Greeting, error) {
	return invoke[Greeting](ctx, c, "Hello", struct{}{})
}
