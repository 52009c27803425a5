package supervisor

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const (
	namespace  = "@pqlab/" // "@" is how Go and /proc/net/unix write the zero byte that makes a name abstract
	maxNameLen = 64        // sun_path has 108 bytes
)

// CheckName says whether a lab can have this name: 1 to 64 letters, digits, '.', '_' and '-'.
func CheckName(name string) error {
	if name == "" || len(name) > maxNameLen {
		return fmt.Errorf("%w %.80q: %d bytes, must be 1 to %d", ErrName, name, len(name), maxNameLen)
	}
	for _, r := range name {
		if !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-", r) {
			return fmt.Errorf("%w %q: %q is not a letter, digit, '.', '_' or '-'", ErrName, name, r)
		}
	}
	return nil
}

func address(uid int, name string) string { return namespace + strconv.Itoa(uid) + "/" + name }

// socket is a listening socket that has the form of a lab's. Anybody may have bound it.
type socket struct {
	uid   int // as the name says
	name  string
	inode uint64
}

func (s socket) address() string { return address(s.uid, s.name) }

// sockets lists the labs' sockets of the caller's network namespace.
func sockets() ([]socket, error) {
	f, err := os.Open("/proc/net/unix")
	if err != nil {
		return nil, fmt.Errorf("looking for labs: %w; /proc must be mounted", err)
	}
	defer f.Close()
	return parseSockets(f)
}

// parseSockets reads the format of /proc/net/unix: "Num RefCount Protocol Flags Type St Inode Path". Paths are other
// users' choice: what is not exactly a lab's is passed over.
func parseSockets(r io.Reader) ([]socket, error) {
	const acceptsConnections = 1 << 16 // __SO_ACCEPTCON in Flags
	var found []socket
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 8 || !strings.HasPrefix(f[7], namespace) {
			continue
		}
		flags, err := strconv.ParseUint(f[3], 16, 64)
		if err != nil || flags&acceptsConnections == 0 {
			continue
		}
		inode, err := strconv.ParseUint(f[6], 10, 64)
		if err != nil {
			continue
		}
		s := socket{inode: inode}
		uid, name, _ := strings.Cut(f[7][len(namespace):], "/")
		if s.uid, err = strconv.Atoi(uid); err != nil || CheckName(name) != nil {
			continue
		}
		s.name = name
		if s.address() == f[7] { // "+1" and "01" are no uid
			found = append(found, s)
		}
	}
	return found, lines.Err()
}
