// Copyright The micropod Authors.
// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"hash/crc32"
)

// The numbers of this file are those of Linux's fs/erofs/erofs_fs.h.
const (
	superOffset = 1024
	superMagic  = 0xE0F5E1E2
	blockBits   = 12

	compatChecksum = 0x1 // feature_compat: the superblock's crc32c counts
	compatMtime    = 0x2 // feature_compat: an inode's time is its mtime

	incompatChunked = 0x4 // feature_incompat: some files are chunk based

	slotSize      = 32 // a node id counts these from the start of the inode area
	compactSize   = 32
	extendedSize  = 64
	direntSize    = 12
	xattrHeadSize = 12

	layoutPlain  = 0
	layoutInline = 2
	layoutChunk  = 4

	nullBlock = 0xffffffff // a chunk that is a hole
)

var le = binary.LittleEndian

type superblock struct {
	rootNID     uint16
	inodes      uint64
	time        Time
	blocks      uint32
	metaBlock   uint32
	xattrBlock  uint32
	uuid        [16]byte
	hasChunking bool
}

// encode gives block 0 whole. Its checksum covers all from the superblock's start to
// the block's end, with the field itself zero.
func (s *superblock) encode() []byte {
	block := make([]byte, BlockSize)
	b := block[superOffset:]
	le.PutUint32(b[0:], superMagic)
	le.PutUint32(b[8:], compatChecksum|compatMtime)
	b[12] = blockBits
	le.PutUint16(b[14:], s.rootNID)
	le.PutUint64(b[16:], s.inodes)
	le.PutUint64(b[24:], uint64(s.time.Sec))
	le.PutUint32(b[32:], s.time.Nsec)
	le.PutUint32(b[36:], s.blocks)
	le.PutUint32(b[40:], s.metaBlock)
	le.PutUint32(b[44:], s.xattrBlock)
	copy(b[48:64], s.uuid[:])
	if s.hasChunking {
		le.PutUint32(b[80:], incompatChunked)
	}
	// The kernel's crc32c starts from ~0 and, unlike hash/crc32, does not invert the end.
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return block
}

// diskInode is an inode as it is encoded; what it points at is already placed.
type diskInode struct {
	compact    bool
	layout     uint16
	xattrBytes int // size of the attribute body, 0 for none
	mode       uint32
	size       uint64
	u          uint32 // block address, device number or chunk format
	ino        uint32
	uid, gid   uint32
	time       Time
	nlink      uint32
}

func (d *diskInode) encode() []byte {
	b := make([]byte, extendedSize)
	le.PutUint16(b[2:], xattrCount(d.xattrBytes))
	le.PutUint16(b[4:], uint16(d.mode))
	le.PutUint32(b[16:], d.u)
	le.PutUint32(b[20:], d.ino)
	if d.compact {
		le.PutUint16(b[0:], d.layout<<1)
		le.PutUint16(b[6:], uint16(d.nlink))
		le.PutUint32(b[8:], uint32(d.size))
		le.PutUint16(b[24:], uint16(d.uid))
		le.PutUint16(b[26:], uint16(d.gid))
		return b[:compactSize]
	}
	le.PutUint16(b[0:], d.layout<<1|1)
	le.PutUint64(b[8:], d.size)
	le.PutUint32(b[24:], d.uid)
	le.PutUint32(b[28:], d.gid)
	le.PutUint64(b[32:], uint64(d.time.Sec))
	le.PutUint32(b[40:], d.time.Nsec)
	le.PutUint32(b[44:], d.nlink)
	return b
}

// xattrCount is the i_xattr_icount of an attribute body of n bytes.
func xattrCount(n int) uint16 {
	if n == 0 {
		return 0
	}
	return uint16((n-xattrHeadSize)/4 + 1)
}

// encodeDevice packs a device number as Linux's new_encode_dev does.
func encodeDevice(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

func alignUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
