// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
/*
 * <linux/mlx5/driver.h> and <linux/mlx5/vport.h>: what mlx5-vfio-pci uses of mlx5_core, the driver
 * of the PF. mlx5_core carries commands to the firmware and gives names to what they make; here it
 * carries them to the tester. The layouts are the kernel's own headers'.
 */
#ifndef VERIFY_MLX5_CORE_H
#define VERIFY_MLX5_CORE_H

#include <linux/kernel.h>

/* What the mlx5 headers want of the InfiniBand headers and of the kernel log, and nobody uses here. */
struct ib_grh {
	u8 bytes[40];
};
struct ib_ah {
	int unused;
};
struct mlx5_core_rsc_common {
	int unused;
};
#define IB_MTU_4096 5
#define KERN_WARNING ""
#define DUMP_PREFIX_OFFSET 0
#define print_hex_dump(...) ((void)0)
#define mlx5_get_roce_state(dev) 0

#include <linux/mlx5/device.h>
#include <linux/mlx5/doorbell.h>
#include <linux/mlx5/eq.h>

/* The capabilities that mlx5_core has read of the PF, as the headers' macros look for them. */
struct mlx5_hca_cap {
	u32 cur[MLX5_UN_SZ_DW(hca_cap_union)];
	u32 max[MLX5_UN_SZ_DW(hca_cap_union)];
};
struct mlx5_core_dev {
	struct device *device;
	struct {
		struct mlx5_hca_cap *hca[MLX5_CAP_NUM];
		u32 pcam[1], mcam[1][1], fpga[1], qcam[1];
		u8 embedded_cpu;
	} caps;
	struct {
		int numa_node;
	} priv;
	struct notifier_block *sriov;
	struct mlx5_nb *events;
	u32 uar; /* the one that there is, if any */
	struct {
		int number;
		struct page *page;
		dma_addr_t dma;
	} eq;
};

/* The PF belongs to a driver for as long as this process lives. */
struct mlx5_core_dev *mlx5_vf_get_core_dev(struct pci_dev *vf);
#define mlx5_vf_put_core_dev(dev) ((void)(dev))
enum {
	MLX5_PF_NOTIFY_DISABLE_VF,
	MLX5_PF_NOTIFY_ENABLE_VF,
};
int mlx5_sriov_blocking_notifier_register(struct mlx5_core_dev *dev, int vf,
					  struct notifier_block *block);
void mlx5_sriov_blocking_notifier_unregister(struct mlx5_core_dev *dev, int vf,
					     struct notifier_block *block);
int mlx5_vport_get_other_func_cap(struct mlx5_core_dev *dev, u16 function, void *out, u16 type);

/*
 * Commands. mlx5_cmd_exec() turns the status in the output into an errno; a callback is given
 * -EREMOTEIO for a status that is not OK and looks at the output itself. Nothing is tried again.
 * A context counts what is in flight, itself included; clean-up waits for all of it.
 */
int mlx5_cmd_exec(struct mlx5_core_dev *dev, void *in, int in_size, void *out, int out_size);
#define mlx5_cmd_exec_inout(dev, command, in, out) \
	mlx5_cmd_exec(dev, in, MLX5_ST_SZ_BYTES(command##_in), out, MLX5_ST_SZ_BYTES(command##_out))
#define mlx5_cmd_exec_in(dev, command, in) ({ \
	u32 unused_out_[MLX5_ST_SZ_DW(command##_out)] = {}; \
	mlx5_cmd_exec_inout(dev, command, in, unused_out_); \
})
void mlx5_cmd_out_err(struct mlx5_core_dev *dev, u16 opcode, u16 op_mod, void *out);
struct mlx5_async_ctx {
	struct mlx5_core_dev *dev;
	int inflight;
	struct completion drained;
};
struct mlx5_async_work;
typedef void (*mlx5_async_cbk_t)(int status, struct mlx5_async_work *work);
struct mlx5_async_work {
	struct mlx5_async_ctx *ctx;
	mlx5_async_cbk_t callback;
	void *out;
	int out_size;
	u64 id;
	struct list_head in_flight;
};
void mlx5_cmd_init_async_ctx(struct mlx5_core_dev *dev, struct mlx5_async_ctx *ctx);
void mlx5_cmd_cleanup_async_ctx(struct mlx5_async_ctx *ctx);
int mlx5_cmd_exec_cb(struct mlx5_async_ctx *ctx, void *in, int in_size, void *out, int out_size,
		     mlx5_async_cbk_t callback, struct mlx5_async_work *work);

/* What has a name in the firmware. A key is the index of its context and eight bits of choice. */
int mlx5_core_alloc_pd(struct mlx5_core_dev *dev, u32 *pd);
int mlx5_core_dealloc_pd(struct mlx5_core_dev *dev, u32 pd);
int mlx5_core_create_mkey(struct mlx5_core_dev *dev, u32 *mkey, u32 *in, int in_size);
int mlx5_core_destroy_mkey(struct mlx5_core_dev *dev, u32 mkey);

/* What the page tracker needs besides: a UAR page, doorbell records, queues in pages. */
struct mlx5_uars_page {
	void __iomem *map;
	u32 index;
	u8 doorbell[MLX5_CQ_DOORBELL + 8];
};
struct mlx5_uars_page *mlx5_get_uars_page(struct mlx5_core_dev *dev);
void mlx5_put_uars_page(struct mlx5_core_dev *dev, struct mlx5_uars_page *uar);
struct mlx5_db {
	__be32 *db;
	dma_addr_t dma;
	struct page *page;
};
int mlx5_db_alloc_node(struct mlx5_core_dev *dev, struct mlx5_db *db, int node);
void mlx5_db_free(struct mlx5_core_dev *dev, struct mlx5_db *db);
struct mlx5_buf_list {
	u8 *buf;
	dma_addr_t dma;
	struct page *page;
};
struct mlx5_frag_buf {
	struct mlx5_buf_list *frags;
	int npages;
	u8 page_shift;
};
struct mlx5_frag_buf_ctrl {
	struct mlx5_buf_list *frags;
	u8 log_stride;
};
int mlx5_frag_buf_alloc_node(struct mlx5_core_dev *dev, int size, struct mlx5_frag_buf *buf,
			     int node);
void mlx5_frag_buf_free(struct mlx5_core_dev *dev, struct mlx5_frag_buf *buf);
void mlx5_fill_page_frag_array(struct mlx5_frag_buf *buf, __be64 *addresses);
static inline void mlx5_init_fbc(struct mlx5_buf_list *frags, u8 log_stride, u8 log_size,
				 struct mlx5_frag_buf_ctrl *control)
{
	control->frags = frags;
	control->log_stride = log_stride;
}
static inline void *mlx5_frag_buf_get_wqe(struct mlx5_frag_buf_ctrl *control, u32 index)
{
	size_t byte = (size_t)index << control->log_stride;

	return control->frags[byte / PAGE_SIZE].buf + byte % PAGE_SIZE;
}
static inline u32 wq_get_byte_sz(u8 log_size, u8 log_stride)
{
	return 1U << (log_size + log_stride);
}
#define mlx5_comp_vectors_max(dev) 1
/* The queue of completion events: made for the one completion queue there is, and gone with it. */
int mlx5_comp_eqn_get(struct mlx5_core_dev *dev, u16 vector, int *eqn);
void mlx5_eq_notifier_register(struct mlx5_core_dev *dev, struct mlx5_nb *block);
void mlx5_eq_notifier_unregister(struct mlx5_core_dev *dev, struct mlx5_nb *block);

#endif
