package port

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// unspeakable are the offloads, by ethtool's names, whose packets a virtio_net_hdr cannot describe. Without them the
// kernel finishes such packets itself.
var unspeakable = []string{
	"tx-checksum-sctp", "tx-sctp-segmentation", "tx-gso-list", "tx-esp-segmentation",
	"tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation",
}

const (
	nameLen     = 32 // ETH_GSTRING_LEN
	setFeatures = 4  // ETH_SS_FEATURES
)

// disable switches features of an interface off; ones that it has not got are off already. fd is any socket of its
// namespace.
func disable(fd int, name string, features []string) error {
	names, err := featureNames(fd, name)
	if err != nil {
		return fmt.Errorf("interface %s: names of its features: %w", name, err)
	}
	// struct ethtool_sfeatures: command, number of blocks, and for each 32 features which to set and to what.
	blocks := (len(names) + 31) / 32
	request := make([]byte, 8+8*blocks)
	binary.NativeEndian.PutUint32(request, unix.ETHTOOL_SFEATURES)
	binary.NativeEndian.PutUint32(request[4:], uint32(blocks))
	for i, n := range names {
		if slices.Contains(features, n) {
			valid := request[8+i/32*8:]
			binary.NativeEndian.PutUint32(valid, binary.NativeEndian.Uint32(valid)|1<<(i%32))
		}
	}
	if err := ethtool(fd, name, request); err != nil {
		return fmt.Errorf("interface %s: switch features off: %w", name, err)
	}
	return nil
}

// featureNames lists an interface's features in the order of their bits.
func featureNames(fd int, name string) ([]string, error) {
	// struct ethtool_sset_info: command, reserved, mask of sets, and the length of the one asked for.
	info := make([]byte, 20)
	binary.NativeEndian.PutUint32(info, unix.ETHTOOL_GSSET_INFO)
	binary.NativeEndian.PutUint64(info[8:], 1<<setFeatures)
	if err := ethtool(fd, name, info); err != nil {
		return nil, err
	}
	n := int(binary.NativeEndian.Uint32(info[16:]))
	// struct ethtool_gstrings: command, set, length, strings.
	table := make([]byte, 12+n*nameLen)
	binary.NativeEndian.PutUint32(table, unix.ETHTOOL_GSTRINGS)
	binary.NativeEndian.PutUint32(table[4:], setFeatures)
	binary.NativeEndian.PutUint32(table[8:], uint32(n))
	if err := ethtool(fd, name, table); err != nil {
		return nil, err
	}
	var names []string
	for s := range slices.Chunk(table[12:], nameLen) {
		s, _, _ := bytes.Cut(s, []byte{0})
		names = append(names, string(s))
	}
	return names, nil
}

// ethtool performs a request, which the kernel overwrites.
func ethtool(fd int, name string, request []byte) error {
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // the rest of struct ifreq
	}
	copy(ifr.name[:], name)
	ifr.data = unsafe.Pointer(&request[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}
