// y = pixel · factor_c − offset_c, of images chosen from a data set, each cut out of itself padded with zeros, `top` and
// `left` pixels from the padded image's corner, and mirrored left to right where `flip` is not 0. One thread a pixel.

struct Crop {
    int channels, height, width, padding;
};

extern "C" __global__ void images_from_pixels(const unsigned char* pixels, const long long* chosen, const int* top,
                                              const int* left, const unsigned char* flip, const float* factor,
                                              const float* offset, float* y, int size, Crop crop) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= size) return;
    int column = i % crop.width, row = i / crop.width % crop.height;
    int channel = i / crop.width / crop.height % crop.channels, image = i / crop.width / crop.height / crop.channels;

    if (flip[image]) column = crop.width - 1 - column;
    row += top[image] - crop.padding;
    column += left[image] - crop.padding;
    float pixel = 0;
    if (0 <= row && row < crop.height && 0 <= column && column < crop.width) {
        size_t map = (size_t)chosen[image] * crop.channels + channel;
        pixel = pixels[(map * crop.height + row) * crop.width + column];
    }
    y[i] = pixel * factor[channel] - offset[channel];
}
